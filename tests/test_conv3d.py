"""The 3DConv generator against the reference's numbers, and properties of any batch."""

import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scaledreamer.config.compose import compose
from scaledreamer.errors import UserError
from scaledreamer.generators.conv3d import Conv3DGenerator, Mapping, Synthesis
from scaledreamer.generators.modulated import SynthesisLayer, leaky_clamp, modulated_conv3d, upsample
from scaledreamer.randomness import StepRandom

WIDTHS = {"A": (20, 16, 12), "B": (20, 16, 12, 10), "C": (512, 512, 512)}


class Network(torch.nn.Module):
    """Mapping and synthesis under the names of the reference's generator."""

    def __init__(self, config, widths):
        super().__init__()
        w_dim = config["w_dim"]
        self.mapping = Mapping(latent_dim=config["z_dim"], text_dim=config["c_dim"], w_dim=w_dim)
        self.synthesis = Synthesis(
            widths=widths,
            features=config["img_channels"],
            w_dim=w_dim,
            bias_resolution=config.get("bias_resolution", 64),
        )

    def forward(self, z, c, noise="const", random=None):
        w = self.mapping(z, c)
        return self.synthesis(w, noise, random), w


class Recorded:
    """Plays the draws of ``torch.manual_seed(777)`` in forward order."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(777)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)


def load(goldens, name):
    golden = goldens("conv3d_generator")
    network = Network(golden.meta["cases"][name]["config"], WIDTHS[name])
    case = golden.case(name)
    network.load_state_dict({k.removeprefix("state."): v for k, v in case.items() if k.startswith("state.")})
    return network, case


@pytest.mark.parametrize("name", ["A", "B"])
def test_golden_volume_and_gradients(goldens, name):
    network, case = load(goldens, name)
    z = case["in.z"].requires_grad_()
    c = case.get("in.c", torch.zeros(z.shape[0], 0)).requires_grad_()
    image, w = network(z, c)
    torch.testing.assert_close(w, case["out.ws"][:, 0], rtol=1e-4, atol=1e-5)
    expected = case["out.image"]
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    loss = 10 * (image * case["in.w_loss"]).mean()
    torch.testing.assert_close(loss, case["out.loss"], rtol=1e-4, atol=1e-6)
    loss.backward()
    found = {"z": z.grad, "c": c.grad, **{n: p.grad for n, p in network.named_parameters()}}
    checked = [k.removeprefix("grad.") for k in case if k.startswith("grad.")]
    assert len(checked) >= 10
    for key in checked:
        expected = case[f"grad.{key}"]
        torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-6 * expected.abs().max().item(), msg=key)


@pytest.mark.parametrize("name", ["A", "B"])
@torch.no_grad()
def test_golden_random_noise(goldens, name):
    network, case = load(goldens, name)
    z, c = case["in.z"], case.get("in.c", torch.zeros(case["in.z"].shape[0], 0))
    image, _ = network(z, c, noise="random", random=Recorded())
    expected = case["out.image_random_seed777"]
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    image, _ = network(z, c, noise="none")
    expected = case["out.image_noise_strength0"]
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_golden_full_widths(goldens):
    golden = goldens("conv3d_generator")
    network = Network(golden.meta["cases"]["C"]["config"], WIDTHS["C"])

    def recipe(key, shape):
        x = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape)
        x = torch.from_numpy(x.astype(np.float32))
        if key.endswith("affine.bias"):
            return 1 + 0.1 * x
        return 0.1 * x if key.endswith((".bias", "noise_strength")) else x

    network.load_state_dict({k: recipe(k, tuple(v.shape)) for k, v in network.state_dict().items()})
    image, w = network(recipe("in.z", (1, 64)), recipe("in.c", (1, 1024)))
    case = golden.case("C")
    torch.testing.assert_close(w, case["out.ws"], rtol=1e-3, atol=1e-4)
    expected = case["out.image"]
    torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def small(**options) -> Conv3DGenerator:
    torch.manual_seed(0)
    generator = Conv3DGenerator(
        text_dim=7, latent_dim=6, w_dim=10, resolution=16, widths=(12, 10, 8), channels=5, **options
    )
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.normal_(parameter)
    return generator


def test_a_batch_equals_its_samples():
    generator = small(noise="none")
    text, latent = torch.randn(3, 7), torch.randn(3, 6)
    together = generator.voxels(text, latent)
    alone = torch.cat([generator.voxels(text[i : i + 1], latent[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_modulation_by_hand():
    """One voxel, two channels in, one out: style (1, 2), weights (3, 4) -> (3 a + 8 b) / sqrt(9 + 64)."""
    weight = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1, 1)
    x = torch.tensor([5.0, 6.0]).view(1, 2, 1, 1, 1)
    style = torch.tensor([[1.0, 2.0]])
    plain = modulated_conv3d(x, weight, style, demodulate=False)
    assert plain.item() == pytest.approx(15 + 48)
    assert modulated_conv3d(x, weight, style).item() == pytest.approx(63 / 73**0.5, rel=1e-6)
    pair = modulated_conv3d(x.expand(2, -1, -1, -1, -1), weight, style.expand(2, -1))
    torch.testing.assert_close(pair, torch.full_like(pair, 63 / 73**0.5))


def test_upsampling_by_hand():
    """0 and 1 at the corners of an axis: thirds between them; along all axes as torch interpolates."""
    volume = torch.zeros(1, 1, 2, 2, 2)
    volume[..., 1] = 1.0
    torch.testing.assert_close(upsample(volume)[0, 0, 3, 1], torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    volume = torch.randn(2, 3, 4, 4, 4)
    torch.testing.assert_close(
        upsample(volume), F.interpolate(volume, scale_factor=2, mode="trilinear", align_corners=True)
    )


def test_leaky_clamp_equals_its_parts():
    x = torch.tensor([-2000.0, -3.0, -0.5, 0.5, 3.0, 500.0], dtype=torch.float64, requires_grad=True)
    expected = (F.leaky_relu(x, 0.2) * 2**0.5).clamp(-256, 256)
    torch.testing.assert_close(leaky_clamp(x), expected)
    (gradient,) = torch.autograd.grad(leaky_clamp(x).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0])


def test_noise_is_of_the_step_in_training_and_off_in_evaluation():
    generator = small(noise="random")
    text = torch.randn(2, 7)

    def draw(step):
        return generator.voxels(text, random=StepRandom(seed=0, step=step))

    torch.testing.assert_close(draw(1), draw(1))
    assert (draw(1) - draw(2)).abs().max() > 0.1
    torch.testing.assert_close(generator.voxels(text), generator.voxels(text))
    generator.noise = "none"
    torch.testing.assert_close(generator.voxels(text), generator.voxels(text, random=StepRandom(seed=0, step=1)))


def test_every_parameter_learns():
    generator = small(noise="random")
    field = generator(torch.randn(2, 7), torch.randn(2, 6), StepRandom(seed=0, step=0))
    sampled = field.query(torch.rand(2, 50, 3) * 2 - 1)
    (sampled.sdf.sum() + sampled.color.sum()).backward()
    silent = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("prompts", [1, 2])
def test_half_precision_stays_close(prompts):
    generator = small(noise="none")
    text, latent = torch.randn(prompts, 7), torch.randn(prompts, 6)
    full = generator.voxels(text, latent)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator.voxels(text, latent)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() / full.norm() < 0.03


def test_too_few_widths_are_refused():
    with pytest.raises(UserError, match="resolution 32 needs 4 of them"):
        Conv3DGenerator(text_dim=7, resolution=32, widths=[4, 4, 4])


def test_the_multiplier_counts_from_32_voxels_on():
    generator = Conv3DGenerator(text_dim=7, resolution=32, widths=[5, 4, 3, 2], channel_multiplier=3)
    assert [block.conv1.weight.shape[0] for block in generator.synthesis.blocks] == [4, 3, 6]


def test_the_options_are_the_papers():
    options = {name: compose([f"generator={name}"]) for name in ("3dconv", "3dconv_m2")}
    for name, widths in (("3dconv", [256, 128, 64]), ("3dconv_m2", [512, 256, 128])):
        arguments = {k: v for k, v in options[name].generator.items() if k != "_target_"}
        with torch.device("meta"):
            generator = Conv3DGenerator(text_dim=1024, **arguments)
        assert [block.conv0.weight.shape[0] for block in generator.synthesis.blocks[2:]] == widths
    assert options["3dconv"].optimizer == {
        "_target_": "torch.optim.Adam",
        "_partial_": True,
        "lr": 0.004,
        "betas": [0.0, 0.99],
    }
    assert options["3dconv_m2"].optimizer == {
        "_target_": "scaledreamer.optim.adan.Adan",
        "_partial_": True,
        "lr": 0.004,
        "betas": [0.98, 0.92, 0.99],
        "eps": 1e-15,
    }


@pytest.mark.parametrize(("run", "multiplier"), [("DF415_3dconv_net", 1), ("CP100k_3dconv_net", 2)])
def test_published_layout(goldens, run, multiplier):
    """Every published tensor of the paper's runs has its place, with its shape."""
    keys = goldens("reference_checkpoint_layout").meta["configs"][run]["keys"]
    with torch.device("meta"):
        generator = Conv3DGenerator(text_dim=1024, channel_multiplier=multiplier)
    ours = {k: list(v.shape) for k, v in generator.state_dict().items()}
    theirs = {
        k.removeprefix("geometry.").removeprefix("space_generator."): v["shape"]
        for k, v in keys.items()
        if k.startswith("geometry.") and k != "geometry.bbox"
    }
    assert ours == theirs


def test_layers_of_the_published_run_have_its_resolutions():
    with torch.device("meta"):
        generator = Conv3DGenerator(text_dim=1024)
    sides = [m.resolution for m in generator.modules() if isinstance(m, SynthesisLayer)]
    assert sides == [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128]
