"""``python -m scaledreamer.gallery``: a page to look through a run's objects, or several runs' side by side.

::

    run ──► source ──► objects ──► media     posters, videos, meshes that a page may open from a disk
      │        └─────► scores   ──┐
      └──────────────► settings ──┴► page    index.html, and everything that it needs beside it

A browser opens the page from the disk or from any web server, without a network: what it needs is in its folder, the
viewer (``assets/model-viewer``) included. It is looked at with ``assets/gallery.js`` and its siblings.
"""
