"""What a denoiser's output and its timesteps mean. N network inputs, C h w latents, T timesteps."""

from torch import Tensor

from scaledreamer.priors.layout import Configs


def alphas_cumprod(configs: Configs) -> Tensor:
    """Products of the alphas [T], float32, of the scheduler that the weights were trained with."""
    from diffusers import DDPMScheduler

    fields = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    options = {k: configs.scheduler[k] for k in (*fields, "rescale_betas_zero_snr") if k in configs.scheduler}
    return DDPMScheduler(**options).alphas_cumprod.float()


def as_noise(output: Tensor, noisy: Tensor, abar: Tensor, prediction_type: str) -> Tensor:
    """What a denoiser's output says the noise is.

    With x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, and v = sqrt(abar) eps - sqrt(1 - abar) x_0
    (Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models"):
    eps = sqrt(abar) v + sqrt(1 - abar) x_t = (x_t - sqrt(abar) x_0) / sqrt(1 - abar).

    Args:
        output: of the network [N, C, h, w].
        noisy: x_t [N, C, h, w].
        abar: [N], in [0, 1).
        prediction_type: "epsilon", "v_prediction" or "sample" (x_0).
    """
    abar = abar.view(-1, 1, 1, 1)
    if prediction_type == "v_prediction":
        return abar.sqrt() * output + (1 - abar).sqrt() * noisy
    if prediction_type == "sample":
        return (noisy - abar.sqrt() * output) / (1 - abar).sqrt()
    return output
