"""Data: pictures, clips, and questions about them; built in, or a user's own."""
