"""``python -m scaledreamer.serve``: a page to try a trained generator.

::

    page, app ──► desk ──► book      which prompts are understood
                   │  └──► line      one object is made at a time, others wait
                   ├─────► workshop  prompt -> GLB and video
                   └─────► shelf     files that are kept, and then thrown away

The page and the interface for programs are in :mod:`scaledreamer.serve.page` and :mod:`scaledreamer.serve.app`; only
they, and :mod:`scaledreamer.serve.server`, need the packages of the extra ``serve``.
"""
