"""The Chatterbox engine: text to speech tokens, speech tokens to sound."""
