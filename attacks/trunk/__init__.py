"""Images from the features that a trunk makes of them; `attack` is where to begin reading."""
