"""Train a bundled prior: ``python -m scaledreamer.toybox.training toy``, or ``... toy_clip``, the judge.

``... toy_mv`` trains the multi-view denoiser on ``toy``'s latents. Two stages tune parts of ``toy`` that its denoiser
does not notice: ``... toy_decoder`` the VAE's decoder, ``... toy_text`` the pooled embedding of its text encoder.

Sized for less than ten minutes on one H100. With ``--minutes`` it stops in time and the same command goes on.
"""

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from scaledreamer.toybox.training.loop import Plan

PICTURES = 100_000
VAE = Plan(steps=3500, lr=1e-3, average=0.999)
DECODER = Plan(steps=1500, lr=5e-4, average=0.998, seed=2)
DENOISER = Plan(steps=17_000, lr=8e-4, average=0.9995)
TEXT = Plan(steps=1500, lr=3e-4, average=0.99)
MULTIVIEW = Plan(steps=9000, lr=8e-4, average=0.9995, seed=3)
CLIP = Plan(steps=4000, lr=8e-4, average=0.999, weight_decay=0.05, seed=1)
CLIP_SEED = 1000  # its pictures are not those of the prior


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m scaledreamer.toybox.training", description=__doc__)
    parser.add_argument("prior", choices=("toy", "toy_mv", "toy_decoder", "toy_text", "toy_clip"))
    parser.add_argument("--folder", type=Path, help="where to write (the package's own weights)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop and save the state when the call is this old")
    parser.add_argument("--fit", action="store_true", help="train as long as --minutes allow, whatever is planned")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=float, default=1.0, metavar="FACTOR", help="of the planned steps")
    parser.add_argument("--batch", type=int, help="pictures per step (toy_mv: toys)")
    parser.add_argument("--plain", action="store_true", help="do not compile")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled here runs as it is
    from scaledreamer.toybox import weights
    from scaledreamer.toybox.training.pictures import draw_pictures

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder: Path = given.folder or weights.FOLDER / given.prior.removesuffix("_decoder").removesuffix("_text")
    folder.mkdir(parents=True, exist_ok=True)

    def plan(base: Plan) -> Plan:
        left = given.minutes - (time.monotonic() - started) / 60
        steps = max(1, round(base.steps * given.steps))
        return replace(base, steps=steps, seed=base.seed + given.seed, minutes=left, fits=given.fit)

    if given.prior == "toy_text":
        from scaledreamer.toybox.training.text import tune_text

        tune_text(folder, plan(TEXT), device=device, **({"batch": given.batch} if given.batch else {}))
        return
    seeds = {"toy": 0, "toy_mv": MULTIVIEW.seed, "toy_decoder": DECODER.seed, "toy_clip": CLIP_SEED}
    seed, views = given.seed + seeds[given.prior], 4 if given.prior == "toy_mv" else 1
    pictures = draw_pictures(given.pictures, seed=seed, device=device, views=views, compiled=not given.plain)
    options = {"compiled": not given.plain, **({"batch": given.batch} if given.batch else {})}
    if given.prior == "toy_mv":
        from scaledreamer.toybox.training.multiview import train_multiview

        train_multiview(pictures, weights.FOLDER / "toy", folder, plan(MULTIVIEW), **options)
        return
    if given.prior == "toy_clip":
        from scaledreamer.toybox.training.clip import train_clip

        train_clip(pictures, folder, plan(CLIP), **options)
        return
    from scaledreamer.toybox.training.denoiser import train_denoiser
    from scaledreamer.toybox.training.vae import state_folder, train_vae, tune_decoder

    if given.prior == "toy_decoder":
        tune_decoder(pictures, folder, plan(DECODER), **options)
        return
    trained = (folder / "vae" / "config.json").exists() and not state_folder(folder).exists()
    if trained or train_vae(pictures, folder, plan(VAE), **options):
        train_denoiser(pictures, folder, plan(DENOISER), **options)


if __name__ == "__main__":
    main()
