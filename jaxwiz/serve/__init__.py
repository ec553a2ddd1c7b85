"""An HTTP server that answers with a checkpoint, in OpenAI's protocol, and a chat in the terminal."""
