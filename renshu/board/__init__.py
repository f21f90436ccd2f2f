"""The board: a folder of runs as web pages, live while they train. It only reads, and only inside the folder."""
