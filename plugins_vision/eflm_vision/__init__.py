"""Image, video and vision-language models, with the same techniques as text models."""
