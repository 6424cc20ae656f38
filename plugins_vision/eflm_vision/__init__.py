"""Pictures, video and vision-language models under the same techniques as text."""
