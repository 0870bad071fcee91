"""A model that serves a picture archive: the queue of studies, and the loop that answers them."""
