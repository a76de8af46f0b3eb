"""`dense-imb evaluate`, one module a kind of data: each makes the table of its runs."""
