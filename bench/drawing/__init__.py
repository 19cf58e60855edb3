"""Parts of the page with the bench's results; each module draws one kind of picture from a ``bench.schema.Document``."""
