"""What every vision-language model here shares on the side of images: two towers, side by side."""
