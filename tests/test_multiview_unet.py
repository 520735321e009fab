"""Joint attention and cameras of the multi-view UNet: the reference's numbers, and what must hold of any weights."""

import json

import pytest
import torch
from torch import Tensor

from scaledreamer.priors.ldm_names import UNET, unet_names
from scaledreamer.priors.multiview_unet import MultiViewUNet, camera_numbers
from scaledreamer.priors.random_weights import RandomWeights
from scaledreamer.priors.sizes import TINY_MV

CPU = torch.device("cpu")
DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # of one prediction, as the reference's numbers say


def golden_unet(golden, views: int) -> MultiViewUNet:
    """The reference's small UNet; of its names only the common beginning is missing."""
    sizes = golden.meta["config"]["unet"]
    channels = [sizes["model_channels"] * m for m in sizes["channel_mult"]]
    model = MultiViewUNet.from_config(
        {
            "views": views,
            "block_out_channels": channels,
            "down_block_types": [DOWN] * 2,
            "up_block_types": [UP] * 2,
            "layers_per_block": sizes["num_res_blocks"],
            "cross_attention_dim": sizes["context_dim"],
            "attention_head_dim": [c // sizes["num_head_channels"] for c in channels],
            "use_linear_projection": sizes["use_linear_in_transformer"],
        }
    )
    names = unet_names(model.unet.state_dict(), model.unet.config)
    state = golden.case("state.unet")
    assert {name.removeprefix(UNET) for name in names.values()} == set(state)
    model.unet.load_state_dict({ours: state[theirs.removeprefix(UNET)] for ours, theirs in names.items()})
    return model.eval()


@pytest.fixture(scope="module")
def golden(goldens):
    return goldens("asd_mv_loss")


@pytest.mark.parametrize("views", [4, 1])
@torch.no_grad()
def test_golden_output(golden, views):
    model, case = golden_unet(golden, views), golden.case("unet")
    # These cameras are any 16 numbers, so they go to the network as they are.
    found = model.unet(
        case["in.x"], case["in.t"], encoder_hidden_states=case["in.context"], class_labels=case["in.camera"]
    ).sample
    torch.testing.assert_close(found, case[f"out.num_frames{views}"], **CLOSE)


def test_golden_camera_numbers(golden):
    torch.testing.assert_close(camera_numbers(golden.tensors["cam.in"]), golden.tensors["cam.out_normalized16"])


def test_camera_numbers_by_hand():
    c2w = torch.eye(4)[None].repeat(2, 1, 1)
    c2w[0, :3, 3] = torch.tensor([0.0, 3.0, 4.0])
    before = c2w.clone()
    found = camera_numbers(c2w.half())  # half precision comes in, the division is in float32
    assert found[0].tolist() == pytest.approx([1, 0, 0, 0, 0, 1, 0, 0.6, 0, 0, 1, 0.8, 0, 0, 0, 1])
    assert found[1].tolist() == pytest.approx(torch.eye(4).flatten().tolist())  # a camera at the origin stays there
    assert torch.equal(c2w, before)


# -- any weights ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single():
    return RandomWeights("tiny").unet(CPU).eval()


@pytest.fixture(scope="module")
def model() -> MultiViewUNet:
    found = RandomWeights("tiny_mv").unet(CPU).eval()
    assert isinstance(found, MultiViewUNet)
    return found


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two objects of four views."""
    torch.manual_seed(0)
    c2w = torch.eye(4).repeat(8, 1, 1)
    c2w[:, :3] = torch.randn(8, 3, 4)
    return torch.randn(8, 4, 8, 8), torch.tensor([500] * 4 + [40] * 4), torch.randn(8, 77, 32), c2w


@torch.no_grad()
def test_views_that_change_places_change_the_places_of_their_outputs(model, inputs):
    order = torch.tensor([2, 0, 3, 1, 4, 5, 6, 7])
    found, permuted = model(*inputs), model(*(x[order] for x in inputs))
    torch.testing.assert_close(permuted, found[order], rtol=1e-4, atol=1e-5)
    assert (permuted - found)[:4].abs().max() > 1e-2


@torch.no_grad()
def test_two_objects_are_denoised_as_each_by_itself_and_views_of_one_are_not(model, inputs):
    together = model(*inputs)
    for rows in (slice(0, 4), slice(4, 8)):
        torch.testing.assert_close(model(*(x[rows] for x in inputs)), together[rows], rtol=1e-4, atol=1e-5)
    other = inputs[0].clone()
    other[1] += 1
    change = (model(other, *inputs[1:]) - together).abs().flatten(1).amax(dim=1)
    assert (change[:4] > 1e-4).all()  # every view of the object sees it
    assert (change[4:] == 0).all()


@torch.no_grad()
def test_a_camera_s_direction_counts_and_its_distance_does_not(model, inputs):
    x, t, tokens, c2w = inputs
    found = model(*inputs)
    farther, turned = c2w.clone(), c2w.clone()
    farther[:, :3, 3] *= 3
    turned[0, :3, 3] *= -1
    torch.testing.assert_close(model(x, t, tokens, farther), found, rtol=1e-4, atol=1e-5)
    assert (model(x, t, tokens, turned) - found)[0].abs().max() > 1e-3


@torch.no_grad()
def test_one_view_of_a_single_view_unet_is_that_unet(single, inputs):
    x, t, tokens, c2w = inputs
    alone = MultiViewUNet.from_single_view(single, views=1).eval()
    assert torch.equal(alone(*inputs), single(x, t, encoder_hidden_states=tokens).sample)
    four = MultiViewUNet.from_single_view(single).eval()
    found = four(*inputs)
    assert (found - alone(*inputs)).abs().max() > 1e-3
    assert torch.equal(four(x, t, tokens, c2w.flip(0)), found)  # cameras are not heeded yet
    # Four times the same view: attention over copies is attention over one.
    same = [x[:1].expand(4, -1, -1, -1), t[:4], tokens[:1].expand(4, -1, -1), c2w[:4]]
    torch.testing.assert_close(four(*same), alone(*same), rtol=1e-4, atol=1e-5)


def test_a_copy_of_a_single_view_unet_learns_its_cameras(single, inputs):
    four = MultiViewUNet.from_single_view(single)
    four(*inputs).square().mean().backward()
    last = four.unet.class_embedding.linear_2
    assert last.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in single.parameters())


def test_files_are_a_diffusers_unet_s_with_the_number_of_views(model, inputs, tmp_path, caplog):
    from diffusers import UNet2DConditionModel

    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["views"], config["class_embed_type"]) == (4, "projection")
    assert config["projection_class_embeddings_input_dim"] == 16
    again = MultiViewUNet.from_pretrained(tmp_path)
    assert again.views == 4
    assert not caplog.records
    with torch.no_grad():
        assert torch.equal(again.eval()(*inputs), model(*inputs))
    known = UNet2DConditionModel.from_pretrained(str(tmp_path))
    assert {k for k, _ in known.named_parameters()} == {k for k, _ in model.unet.named_parameters()}


def test_a_unet_without_cameras_is_refused(single):
    with pytest.raises(ValueError, match="takes no 16 camera numbers"):
        MultiViewUNet(single, views=4)


def test_the_graph_of_a_call_has_no_breaks(inputs):
    """``torch.compile`` and CUDA graphs need a call to be tensors in, tensors out."""
    block = {"block_out_channels": [32], "layers_per_block": 1, "mid_block_type": None, "down_block_types": [DOWN]}
    model = MultiViewUNet.from_config({**TINY_MV.unet, **block, "up_block_types": [UP], "attention_head_dim": 2})
    explained = torch._dynamo.explain(model.eval())(*inputs)
    assert explained.graph_count == 1, explained.break_reasons
