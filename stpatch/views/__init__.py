"""Views: pictures and words for people."""
