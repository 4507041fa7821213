"""Every word of the page on diffusion."""

from dataclasses import dataclass

TITLE = "Diffusion, explained"
ABOUT = ("Noise is added to images until nothing is left of them; a network that has learned to guess the image behind the "
         "noise can go the way back. Each figure is drawn by the code that restores images here.")
IDEA = "Idea"
DRAWING = "Drawing …"
DOWNLOAD = "Figure (.png)"
TIME = "Time: the largest noise level shown"
TIME_LEFT = "Time: the share of the way that is still ahead"
SEED = "Seed"
STEPS = "Steps of the sampler"
PATHS = "Paths"
CALLS = "Denoiser calls, at most"
SCALE = "Guidance scale"
PYTHON = """from invdiff.illustrations.gallery import draw
from invdiff.illustrations.saving import save

save(draw({}), "figures", "{}")"""


@dataclass(frozen=True)
class Idea:
    """title; parts: Markdown, and equations, which begin with a backslash; alt: what the figure shows."""

    title: str
    parts: tuple[str, ...]
    alt: str


IDEAS = {
    "forward": Idea("How noise comes", (
        "An image is drowned in noise, in one jump to any time:",
        r"\displaystyle x_\sigma = x_0 + \sigma n, \quad n \sim \mathcal N(0, 1)",
        "That lets the values grow (variance exploding, VE). Scaled so that the variance stays, it is variance preserving, VP:",
        r"\displaystyle z_t = a(t)\, u_0 + s(t)\, n, \quad a^2 + s^2 = 1",
        "of $u_0 = 2 x_0 - 1$, the image between −1 and 1. At the same ratio of image to noise, $s / a = 2 \\sigma$, they are "
        "the same picture.",
    ), "An image and a density of the plane, at growing noise, under both processes."),
    "reverse": Idea("How noise goes", (
        "The network is a denoiser: the mean of all images that could be behind this noise,",
        r"\displaystyle D(x, \sigma) = \mathbb E\,[\,x_0 \mid x\,]",
        "A step mixes the state with that estimate, down to a lower level:",
        r"\displaystyle x \leftarrow D + \tfrac{\sigma'}{\sigma}\,(x - D)",
        "The estimate is a blur first, for many images are possible; it sharpens as choices are made.",
    ), "States from noise to image, and below each the denoiser's estimate."),
    "score_field": Idea("The score", (
        "The arrows point to where images become more likely. By Tweedie's formula a denoiser knows them:",
        r"\displaystyle \nabla \log p_\sigma(x) = \frac{D(x, \sigma) - x}{\sigma^2}",
        "A measurement y adds one term, and the same samplers restore images:",
        r"\begin{aligned} \nabla \log p(x \mid y) &= \nabla \log p(x) \\ &+ \nabla \log p(y \mid x) \end{aligned}",
    ), "A density of three modes with arrows towards them, at falling noise levels."),
    "sde_and_ode": Idea("Two ways back", (
        "The way back may be random, with fresh noise in each step,",
        r"\begin{aligned} dx = &-2\sigma\,\nabla \log p_\sigma(x)\, d\sigma \\ &+ \sqrt{2\sigma}\, dw \end{aligned}",
        "or a smooth path, the probability flow, which a point of noise follows to one image:",
        r"\displaystyle \frac{dx}{d\sigma} = -\sigma\,\nabla \log p_\sigma(x)",
        "Both have the same density at each time.",
    ), "Rough paths of the SDE beside smooth ones of the ODE, over the same density."),
    "schedules": Idea("Schedules", (
        "How fast the noise comes is a choice. What matters is the ratio",
        r"\displaystyle \mathrm{SNR}(t) = \frac{a(t)^2}{s(t)^2} = \frac{1}{(2\sigma(t))^2}",
        "of $u_0 = 2 x_0 - 1$, whose noise is twice that of $x_0$, and where a sampler's few steps are spent; Karras' levels "
        "put many at low noise:",
        r"\displaystyle \sigma_i = \Big(\sigma_{\max}^{1/\rho} + \tfrac{i}{N}\big(\sigma_{\min}^{1/\rho} - "
        r"\sigma_{\max}^{1/\rho}\big)\Big)^{\rho}",
    ), "Shares of image and noise over time, their ratio, and the levels that samplers visit, for seven schedules."),
    "parametrisations": Idea("What a network predicts", (
        "Noise, image, a mixture of both, a score or a velocity: from one and the noisy image follow all others,",
        r"\displaystyle x_0 = x - \sigma\, \varepsilon",
        "and so does the denoiser. What differs is how large the answer is, and how hard at which noise level.",
    ), "A noisy image at six levels, and below it what each parametrisation asks of it."),
    "losses": Idea("What training counts", (
        "All of them train the same denoiser; they differ in how much its error counts at each noise level,",
        r"\displaystyle \mathbb E\; w(\sigma)\, \lVert D(x_0 + \sigma n, \sigma) - x_0 \rVert^2",
        "and in how often a level is drawn. Some of the error stays however long one trains: many images are possible.",
    ), "Weights by noise level, the loss that the best denoiser leaves, and densities of the levels drawn."),
    "samplers": Idea("Samplers compared", (
        "They differ in how they go from level to level. DDIM takes straight steps along the flow; Heun corrects each one; "
        "DPM-Solver++ remembers the last estimate; DDPM adds fresh noise.",
        r"\displaystyle x_{i+1} = \frac{\sigma_{i+1}}{\sigma_i}\, x_i + \Big(1 - \frac{\sigma_{i+1}}{\sigma_i}\Big) D",
        "With few calls of the denoiser, both kinds of DPM-Solver++ are closest to the density: their second order costs no "
        "calls. Heun's costs a second one in each step, and five calls are three steps, too few. With many, all come close.",
    ), "Samples of two crescents by several samplers, for growing budgets of denoiser calls."),
    "convergence": Idea("How fast they converge", (
        "A method of order k halves its step and divides its error by two to the k:",
        r"\displaystyle \lVert x_N - x(0) \rVert = O(N^{-k})",
        "On the left, measured; on the right, how soon samples are as close to exact ones as those are to each other.",
    ), "Errors that fall with the number of calls, each with the slope that theory says."),
    "guidance": Idea("Guidance", (
        "A network that knows classes can be pushed towards one:",
        r"\displaystyle D_w = D + w\,\big(D(\cdot \mid c) - D\big)",
        "More than w = 1 makes samples clearer, and no samples of the class's density any more.",
    ), "Samples of three overlapping classes: any class, one class, and guided."),
    "likelihood": Idea("Likelihood", (
        "The flow says how likely an image is, by how it spreads what is around it:",
        r"\displaystyle \log p(x_0) = \log p(x_T) + \int \nabla \cdot v\; dt",
        "A bound on it is a sum over noise levels.",
    ), "The density given back by the flow, it against the exact one, and the bound's terms."),
    "flow_map": Idea("One step", (
        "A consistency model learns where the flow ends, at once:",
        r"\displaystyle f(x_\sigma, \sigma) = x_{\sigma_{\min}}",
        "One call of it gives a sample; one call of a denoiser gives the mean of all of them.",
    ), "The flow's end and the denoiser's mean, on a line and for points of the plane."),
}
