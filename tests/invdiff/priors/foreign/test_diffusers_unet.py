"""UNet2DModels as diffusers saves them, against diffusers' own schedulers."""

import json

import pytest
import torch
from foreign_files import hostile, randomised

from invdiff import InputError, load_prior
from invdiff.sampling import image_size

diffusers = pytest.importorskip("diffusers", reason="needs the package diffusers")

SCHEDULES = [{}, {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
             {"beta_schedule": "squaredcos_cap_v2"}, {"num_train_timesteps": 4000}, {"trained_betas": [0.001, 0.01, 0.1, 0.3]}]


def unet(**changes):
    torch.manual_seed(0)
    arguments = {"sample_size": 16, "block_out_channels": (32, 32), "layers_per_block": 1, "attention_head_dim": 8,
                 "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return randomised(diffusers.UNet2DModel(**{**arguments, **changes}))


def scheduler(predicts="epsilon", kind="DDPMScheduler", **settings):
    return getattr(diffusers, kind)(prediction_type=predicts, clip_sample=False, **settings)


def pipeline(folder, network=None, schedule=None, **options):
    """The layout of a pipeline: a folder for each part."""
    (network or unet()).save_pretrained(folder / "unet", **options)
    (schedule or scheduler()).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("settings", SCHEDULES, ids=str)
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_x0_is_that_of_their_scheduler(predicts, settings, tmp_path):
    network, schedule = unet(), scheduler(predicts, **settings)
    prior = load_prior(f"diffusers:{pipeline(tmp_path, network, schedule)}")
    for t in (1, len(schedule.alphas_cumprod) // 2, len(schedule.alphas_cumprod) - 2):
        abar = float(schedule.alphas_cumprod[t])
        x = 0.5 + torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(t)) / abar**0.5
        x_t = abar**0.5 * (2 * x - 1)
        theirs = schedule.step(network(x_t, t).sample, t, x_t).pred_original_sample
        ours = 2 * prior(x, ((1 - abar) / abar) ** 0.5 / 2) - 1
        # a network of noise is steep in t, and abar has six digits
        torch.testing.assert_close(ours, theirs, rtol=5e-3, atol=5e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize(("size", "told"), [(16, [16, 16]), ([16, 32], [16, 32]), (None, None)])
def test_the_size_that_it_was_trained_at_is_that_of_samples(size, told, tmp_path):
    prior = load_prior(f"diffusers:{pipeline(tmp_path, unet(sample_size=size))}")
    assert prior.card["image_size"] == told
    assert image_size(prior) == tuple(told or (64, 64))


@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}])
def test_flat_folders_and_both_kinds_of_weights(tmp_path, options):
    network = unet()
    network.save_pretrained(tmp_path, **options)
    scheduler(kind="DDIMScheduler").save_pretrained(tmp_path)
    prior = load_prior(f"diffusers:{tmp_path}")
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 500.25])
    torch.testing.assert_close(prior.model.network(x, t), network(x, t).sample)
    assert prior.card["image_size"] == [16, 16]
    assert prior(torch.rand(1, 1, 9, 11), 0.3).shape == (1, 1, 9, 11)


def test_names_of_the_first_releases(tmp_path):
    from safetensors.torch import load_file, save_file

    network, path = unet(), tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    pipeline(tmp_path, network)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, before in old.items():
        state = {k.replace(f".{new}.", f".{before}."): v for k, v in state.items()}
    assert any("proj_attn" in key for key in state)
    save_file(state, path)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([10.0])
    torch.testing.assert_close(load_prior(f"diffusers:{tmp_path}").model.network(x, t), network(x, t).sample)


def test_classes_and_learned_steps(tmp_path):
    network = unet(num_class_embeds=5, time_embedding_type="learned", num_train_timesteps=1000)
    pipeline(tmp_path, network)
    prior = load_prior(f"diffusers:{tmp_path}?class=3")
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 20])
    torch.testing.assert_close(prior.model.network(x, t.float()), network(x, t, class_labels=torch.tensor([3, 3])).sample)
    assert prior(torch.rand(1, 3, 16, 16), 0.1234).isfinite().all()
    with pytest.raises(InputError, match=r"expected \?class=0"):
        load_prior(f"diffusers:{tmp_path}")


def test_zero_terminal_signal(tmp_path):
    schedule = scheduler("v_prediction", rescale_betas_zero_snr=True)
    prior = load_prior(f"diffusers:{pipeline(tmp_path, None, schedule)}")
    assert prior(torch.randn(1, 3, 16, 16), 1e6).isfinite().all()


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil(folder, kind):
    config, weights = folder / "unet" / "config.json", folder / "unet" / "diffusion_pytorch_model.safetensors"
    schedule = folder / "scheduler" / "scheduler_config.json"
    match kind:
        case "no config":
            config.unlink()
        case "no weights":
            weights.unlink()
        case "no scheduler":
            schedule.unlink()
        case "broken config":
            config.write_text("{")
        case "list for a config":
            config.write_text("[]")
        case "another model":
            edit(config, _class_name="UNet2DConditionModel")
        case "variance exploding":
            edit(config, time_embedding_type="fourier")
        case "other widths":
            edit(config, block_out_channels=[32, 64])
        case "unknown block":
            edit(config, down_block_types=["DownBlock2D", "NoBlock2D"])
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "other weights":
            unet(layers_per_block=2).save_pretrained(folder / "unet")
            edit(config, layers_per_block=1)
        case "other schedule":
            schedule.write_text(json.dumps({"_class_name": "EDMEulerScheduler", "sigma_min": 0.002}))
        case "unknown betas":
            edit(schedule, beta_schedule="cubic")
        case "unknown prediction":
            edit(schedule, prediction_type="flow")


@pytest.mark.parametrize("kind", ["no config", "no weights", "no scheduler", "broken config", "list for a config",
                                  "another model", "variance exploding", "other widths", "unknown block", "truncated",
                                  "other weights", "other schedule", "unknown betas", "unknown prediction"])
def test_a_bad_folder_is_an_input_error(tmp_path, kind):
    spoil(pipeline(tmp_path), kind)
    with pytest.raises(InputError) as caught:
        load_prior(f"diffusers:{tmp_path}")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_pickle_is_not_executed(tmp_path):
    pipeline(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    hostile(tmp_path / "unet" / "diffusion_pytorch_model.bin", tmp_path / "victim", "zip")
    with pytest.raises(InputError, match="might run code"):
        load_prior(f"diffusers:{tmp_path}")
    assert not (tmp_path / "victim").exists()


def test_offline_one_line_says_what_to_fetch(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the package huggingface-hub")

    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"fetch config\.json.*https://huggingface\.co/google/ddpm-cat-256") as caught:
        load_prior("diffusers:google/ddpm-cat-256")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        load_prior("diffusers:nowhere")


def test_a_repository_is_found_in_the_cache(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the package huggingface-hub")
    pipeline(tmp_path)

    def cached(repository, allow_patterns, local_files_only):
        assert (repository, local_files_only) == ("google/ddpm-cat-256", True)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert load_prior("diffusers:google/ddpm-cat-256").card["source"] == "google/ddpm-cat-256"
