"""Where prompts are handed in: what the page and the interface for programs have in common."""

import logging

from scaledreamer.errors import UserError
from scaledreamer.serve.book import PromptBook
from scaledreamer.serve.line import Job, Line
from scaledreamer.serve.shelf import Made, Shelf
from scaledreamer.serve.workshop import Workshop

log = logging.getLogger(__name__)

VARIATIONS = 2**31
"""Latents that can be asked for."""


class Desk:
    """Takes prompts and gives jobs for them.

    Args:
        book: which prompts are understood.
        workshop: where their objects are made.
        shelf: where these are kept.
        waiting: most jobs that wait.
    """

    def __init__(self, *, book: PromptBook, workshop: Workshop, shelf: Shelf, waiting: int) -> None:
        self.book, self.workshop, self.shelf = book, workshop, shelf
        self.line = Line(self._work, waiting=waiting)

    def order(self, text: object, variation: object = 0) -> Job:
        """:meth:`read` and :meth:`add` what someone wants."""
        return self.add(self.read(text, variation))

    def read(self, text: object, variation: object = 0) -> Made:
        """What someone wants, of which nothing is made yet.

        Args:
            text: what was typed.
            variation: which latent; generators without one have only 0.

        Raises:
            UserError: it is no prompt or variation, or not one of this generator.
        """
        prompt = self.book.read(text)
        if isinstance(variation, float) and variation.is_integer():
            variation = int(variation)
        if not isinstance(variation, int) or isinstance(variation, bool) or not 0 <= variation < VARIATIONS:
            raise UserError(f"A variation is a whole number from 0 to {VARIATIONS - 1}.")
        if variation and not self.workshop.trained.system.generator.latent_dim:
            raise UserError("This generator makes one object of a prompt; variation 0 is the only one.")
        return Made(prompt=prompt, variation=variation, seen=self.book.seen(prompt))

    def add(self, made: Made) -> Job:
        """A job that is waiting, or over where the object is on the shelf.

        Raises:
            Full: too many wait already.
        """
        job = Job(made)
        if not self._take_from_shelf(job):
            self.line.add(job)
        return job

    def close(self) -> None:
        """End the work and remove the files."""
        self.line.close()
        self.shelf.close()

    def _work(self, job: Job) -> None:
        if self._take_from_shelf(job):  # someone before wanted the same
            return
        made = job.made
        self.shelf.put(made)
        try:
            self.workshop.make(made, self.shelf.folder, job.enter)
        except BaseException:
            self.shelf.drop(made)
            raise
        log.info("'%s': %s", made.prompt, "  ".join(f"{stage} {t:.2f} s" for stage, t in made.seconds.items()))

    def _take_from_shelf(self, job: Job) -> bool:
        found = self.shelf.get(job.made.name)
        if found is None:
            return False
        job.made = found
        job.over.set()
        return True
