"""Files on this machine or behind any URL: the one place that knows where the bytes of data lie."""

DECIDES_NO_RESULT = "a file has the same bytes wherever it is read from"
