"""Sizes of the models that this package knows: Stable Diffusion 1.5 and 2.1-base, MVDream, and tiny ones for trials.

What is not said here is as diffusers and transformers have it.
"""

from dataclasses import replace

from scaledreamer.priors.layout import Configs

_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
VOCABULARY = 2 * 256 + 2 * 26**2 + 2
"""Tokens of ``tiny``'s texts: bytes and pairs of letters, each within and at the end of a word; start; end."""

SD21 = Configs(
    unet={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 512,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    text_encoder={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
    },
    scheduler=_SCHEDULER,
)
SD15 = replace(
    SD21,
    unet={**SD21.unet, "cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False},
    text_encoder={
        **SD21.text_encoder,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
)
TINY = Configs(
    unet={
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": [2, 4],
        "norm_num_groups": 8,
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 64,
        "block_out_channels": [8, 16, 16, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "scaling_factor": 0.18215,
    },
    text_encoder={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "projection_dim": 32,
        "max_position_embeddings": 77,
        "vocab_size": VOCABULARY,
    },
    scheduler=_SCHEDULER,
)


def multi_view(single: Configs, *, views: int, latent_size: int) -> Configs:
    """A model like ``single`` that denoises several views of an object, at another size of the latents."""
    return replace(
        single,
        unet={**single.unet, "sample_size": latent_size, "views": views},
        vae={**single.vae, "sample_size": latent_size * single.vae_factor},
    )


MVDREAM = multi_view(SD21, views=4, latent_size=32)
TINY_MV = multi_view(TINY, views=4, latent_size=8)

ARCHITECTURES: dict[str, Configs] = {
    "tiny": TINY,
    "sd15": SD15,
    "sd21": SD21,
    "tiny_mv": TINY_MV,
    "mvdream": MVDREAM,
}
