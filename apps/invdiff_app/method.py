"""The method of a restoration, chosen: prior, sampler, steps, samples and seed."""

from typing import Any

import streamlit as st

from invdiff_app import text


def priors() -> dict[str, dict[str, Any]]:
    """The cards of the shipped priors of colour images, by name, the tasks' own first."""
    from invdiff.config import RunConfig
    from invdiff.priors import shipped_priors
    from invdiff.priors.checkpoint import read_card

    cards = {name: read_card(path) for name, path in shipped_priors().items()}
    first = RunConfig.model_fields["prior"].default
    return {name: cards[name] for name in sorted(cards, key=lambda name: (name != first, name))
            if cards[name].get("architecture", {}).get("channels") == 3}


def choose_method(cards: dict[str, dict[str, Any]], task: str) -> dict[str, Any]:
    """Prior, sampler, steps, samples and seed, by dotted key, with the task's own steps to begin with."""
    from invdiff.config import SAMPLERS
    from invdiff.resolving import run_config

    with st.expander(text.METHOD):
        prior = st.selectbox(text.PRIOR, list(cards), key="prior", bind="query-params")
        offered = [name for name in text.SAMPLERS if name in SAMPLERS]
        sampler = st.selectbox(text.SAMPLER, offered, format_func=text.SAMPLERS.__getitem__, key="sampler", bind="query-params")
        st.caption(SAMPLERS[sampler].about)
        own = run_config(task).sampler
        usual = SAMPLERS[sampler]().num_steps
        first = own["steps"] if own.get("name") == sampler else usual
        key = f"{sampler}_steps" if first == usual else f"{sampler}_{task}_steps"
        steps = st.slider(text.STEPS, 2, 200, first, key=key, bind="query-params")
        samples = st.slider(text.SAMPLES, 1, 8, 4, key="samples", bind="query-params")
        seed = st.number_input(text.SEED, 0, 2**31, 0, key="seed", bind="query-params")
        prior_card(prior, cards[prior])
    return {"prior": prior, "sampler.name": sampler, "sampler.steps": steps, "samples": samples, "seed": int(seed)}


def prior_card(name: str, card: dict[str, Any]) -> None:
    """What is known of a prior, and its limits."""
    st.markdown(f"**{text.CARD.format(name)}**")
    scores = card.get("denoising", {}).get("psnr", {})
    lines = [text.CARD_DATA.format(card["data"]), text.CARD_USE.format(card.get("use", "research")),
             text.CARD_LICENCE.format(card["licence"]), text.CARD_LEVELS.format(*card["sigma_range"])]
    if scores:
        lines.append(text.CARD_SCORES.format(" / ".join(scores), " / ".join(f"{v:.1f}" for v in scores.values())))
    st.caption("  \n".join([*lines, text.CARD_LIMIT]))
