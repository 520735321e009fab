"""What runs and sweeps are called, and what is refused of their trainers."""

import pytest
from hydra.types import RunMode

from scaledreamer.config import check, compose, plain
from scaledreamer.config.resolvers import sweep_name
from scaledreamer.errors import UserError


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "3dconv_toy_toybox_asd_toy"),
        (["guidance/rule=asd_toy"], "3dconv_toy_toybox_asd_toy"),  # its own
        (["guidance/rule=asd"], "3dconv_toy_toybox_asd_toy_asd"),
        (["guidance=sds_toy"], "3dconv_toy_toybox_sds_toy"),
        (["guidance=truth_toy"], "3dconv_toy_toybox_truth_toy"),  # has no rule
        (["generator=3dconv", "corpus=DF415", "guidance=asd_sd"], "3dconv_DF415_asd_sd"),
        (["generator=3dconv", "corpus=DF415", "guidance=asd_sd", "guidance/prior=sd15"], "3dconv_DF415_asd_sd_sd15"),
        (["generator=3dconv", "corpus=DF415", "guidance=asd_sd", "guidance/rule=csd", "guidance/prior=sd15"],
         "3dconv_DF415_asd_sd_csd_sd15"),
        (["experiment=trial"], "3dconv_AT2520_asd_sd_tiny"),
    ],
)  # fmt: skip
def test_a_rule_or_prior_that_is_not_the_guidances_own_is_in_the_name(options, name):
    assert plain(compose(options))["name"] == name


def test_a_sweep_is_called_as_its_folder():
    assert sweep_name(RunMode.MULTIRUN, "multirun/rules/2026-01-02_03-04-05") == "2026-01-02_03-04-05"
    assert sweep_name(RunMode.RUN, "multirun/rules/2026-01-02_03-04-05") is None
    assert sweep_name(None, "multirun/rules") is None


def test_wandb_runs_are_told_apart_by_what_was_chosen():
    logger = plain(compose(["logger=wandb", "guidance=sds_toy"]))["logger"]["wandb"]
    assert logger["tags"] == ["3dconv_toy", "toybox", "sds_toy"]
    assert logger["group"] is None
    assert plain(compose(["logger=wandb", "logger.wandb.group=mine"]))["logger"]["wandb"]["group"] == "mine"


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_keep_what_they_learn_are_refused(strategy):
    with pytest.raises(UserError, match=f"trainer.strategy: {strategy} leaves .* use ddp"):
        check(compose(["trainer=ddp", "trainer.accelerator=cpu", f"trainer.strategy={strategy}"]))
