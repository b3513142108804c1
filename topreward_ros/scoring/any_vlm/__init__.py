"""Any other model of images and text that transformers knows: a full forward pass per prefix and prompt."""
