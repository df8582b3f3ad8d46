"""Networks with one hidden layer, where a true column has two values; `search` is where to begin reading."""
