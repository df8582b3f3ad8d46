"""Images from the features that a trunk makes of them; `attack.images_behind` is where to begin reading."""
