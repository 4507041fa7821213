"""What each figure shows, in a sentence or two, with its source. Without torch: the command line lists the names."""

CAPTIONS = {
    "forward":
        "An image and a density of the plane under the variance-preserving and the variance-exploding process, at "
        "equal signal-to-noise ratio in a column; below a panel, what it shows from black to white or from side to "
        "side (Song et al. 2021, Score-based generative modeling through SDEs, Eq. 29).",
    "reverse":
        "From noise to images: the state, shown as the variance-preserving z of the same noise level, and the clean "
        "estimate D(x, sigma) = E[x0 | x] that the next step goes by (Ho et al. 2020, Section 4.3; by DPM-"
        "Solver++(2M) of Lu et al. 2022).",
    "score_field":
        "The density of x0 + sigma n and its score (D(x, sigma) - x) / sigma^2 by Tweedie's formula; an arrow's "
        "length is r / (r + 0.4) with r = sigma |score| (Efron 2011; Song & Ermon 2019, Section 4).",
    "sde_and_ode":
        "The reverse SDE and the probability-flow ODE from the same noise, over the density p_t(z), each time scaled "
        "to its maximum; a path has the colour of the mode it ends in (after Song et al. 2021, Score-based generative"
        " modeling through SDEs, Figure 2).",
    "samplers":
        "Samples of two crescents, given the exact denoiser, for budgets of denoiser calls at Karras' levels; the "
        "number is the sliced Wasserstein distance to exact draws (Song et al. 2021, DDIM; Ho et al. 2020; Karras et "
        "al. 2022; Lu et al. 2022).",
    "convergence":
        "Left, the error of the probability flow's end falls with the power of the number of calls that theory says, "
        "dashed; right, how soon samples are as close to exact draws as those are to each other (Karras et al. 2022, "
        "Section 3; Lu et al. 2022).",
    "schedules":
        "The image's and the noise's share over time, their ratio, and the noise levels that a sampler of as many "
        "steps visits; sub-VP keeps as much of the image as linear does, EDM's time is its own schedule with rho = 7, and "
        "the learned one is trained on the mixture of the figure samplers (Ho et al. 2020; Nichol & Dhariwal 2021; Chen 2023; "
        "Song et al. 2021; Karras et al. 2022; Lipman et al. 2023; Kingma et al. 2021).",
    "parametrisations":
        "A noisy image, and what a network of each parametrisation is asked of it: all say the same, by exact formulas; "
        "below a panel, what is black and white in it (Ho et al. 2020; Salimans & Ho 2022, Appendix D; Song & Ermon 2019; "
        "Lipman et al. 2023).",
    "losses":
        "How much an error of the denoiser counts at a noise level in each loss; what the exact denoiser of the figure "
        "samplers leaves of it, which learned uncertainty makes even; and how often each level is drawn (Ho et al. 2020; "
        "Salimans & Ho 2022; Karras et al. 2022, 2024; Hang et al. 2023; Lipman et al. 2023; Nichol & Dhariwal 2021).",
    "guidance":
        "Classifier-free guidance, D + scale (D(. | class) - D), from the same noise: above 1, samples leave where "
        "classes overlap, and are no samples of p(x | class) any more (Ho & Salimans 2022, Eq. 6).",
    "likelihood":
        "The density that the probability flow makes of the denoiser alone, against the exact one, with the trace "
        "exact or by one random probe; and what each noise level adds to the variational bound, which an exact "
        "denoiser makes tight (Song et al. 2021, Score-based generative modeling through SDEs, Eq. 39; Kingma et al. "
        "2021, Eq. 18).",
    "flow_map":
        "The map f from a noisy x to where the probability flow ends, which consistency models learn, beside the "
        "denoiser D: one call of f gives samples, one of D their mean (Song et al. 2023, Definition 1 and Algorithm "
        "1).",
}
