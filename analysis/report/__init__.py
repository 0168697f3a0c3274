"""A study's report: what it says (`content.py`), and one module for each form of it.

    results ─► content.document ─► Document ─► html.py · markdown.py · latex.py · pdf.py ─► a file

`methods.py` has the sentences on how the study was done, `examples.py` the items that are shown,
`carried.py` what a report carries so that `mm1 reproduce` can do it again (`reproduction.py`).
"""
