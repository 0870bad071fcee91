"""``[privacy]``: what is promised to the patients."""

from typing import Annotated, Literal

from pydantic import Field

from wardround.common.study.sections.fields import Positive, PositiveInt, Section, Size


class PrivacySection(Section):
    """``[privacy]``: what is promised to the patients.

    Every number is public: it comes from the study and never from what a site holds. Each key has a
    mode that reads it, and a key that the mode does not read is refused.

    Attributes:
        mode: "patient" hides each patient of a site from everybody outside it. "site" hides each
            site from whoever sees the model, but not from the server.
        epsilon: What may be spent in all rounds; the noise is solved for it. 8 where neither this
            nor ``noise_multiplier`` is given.
        delta: The chance beside epsilon; less than 1 / (10 x patients of the smallest site).
        noise_multiplier: Standard deviation of the noise over ``clip_norm``, instead of epsilon.
        noise: Where the noise is. "local": in what each site lets out (mode "patient"), or at the
            server (mode "site"). "distributed": in the masked sum of all sites alone, to which each
            adds its share; the server, too, learns nothing with less noise.
        colluding_sites: Distributed: how many sites may tell the server their shares; as many as
            may drop out of a round if absent.
        clip_norm: Largest norm of what one unit (patient or site) adds to a sum.
        sampling_rate: Patient: probability that a patient takes part in a step.
        expected_patients: Patient: what the sum of a step is divided by; the batch size if absent.
        examples_per_patient: Patient: most examples (slices, patches) of a patient in a step.
        augmentation_copies: Patient: how often an example enters a step, each time augmented anew.
            A patient's examples are averaged, so it costs time and no privacy (De et al. 2022).
        microbatch: Patient: examples in memory at once. It changes no result.
        gradients: Patient: how the gradient of a single patient is found. "auto" takes the fastest
            way that is verified for the network, "loop" one pass a patient, which fits any network,
            and "opacus" the gradients of Opacus. All give the same sum, up to rounding.
        largest_weight: Patient: what a model that a site is sent may hold, in absolute value. The
            hospital's own bound holds where it is smaller, or where this is absent.
        validation_epsilon: Patient: what all measurements on validation patients may spend on one
            of them; the epsilon of the study if absent. 0: they are not measured.
        test_epsilon: Patient: the same of the one measurement on test patients.
        adaptive_clipping: Site: whether the clip norm follows a quantile of the updates' norms.
        clip_quantile: Site: that quantile.
        count_noise: Site: standard deviation of the noise on the count that the quantile is read
            from; 1.64 times the noise multiplier if absent, which raises the noise on the sum by
            5 %.
    """

    mode: Literal["none", "patient", "site"] = "none"
    epsilon: Annotated[float, Field(gt=0, le=1_000)] | None = None
    delta: Annotated[float, Field(ge=1e-15, lt=1)] = 1e-5
    noise_multiplier: Annotated[float, Field(gt=0, le=1e6)] | None = None
    noise: Literal["local", "distributed"] = "local"
    colluding_sites: Annotated[int, Field(ge=0, le=1_024)] | None = None
    clip_norm: Positive = 1.0
    sampling_rate: Annotated[float, Field(ge=1e-6, le=1)] = 0.05
    expected_patients: PositiveInt | None = None
    examples_per_patient: Size = 8
    augmentation_copies: Annotated[int, Field(ge=1, le=1_024)] = 1
    microbatch: Size = 32
    gradients: Literal["auto", "loop", "opacus"] = "auto"
    largest_weight: Positive | None = None
    validation_epsilon: Annotated[float, Field(ge=0, le=1_000)] | None = None
    test_epsilon: Annotated[float, Field(ge=0, le=1_000)] | None = None
    adaptive_clipping: bool = False
    clip_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    count_noise: Positive | None = None

    @property
    def charges_patients(self) -> bool:
        """Whether a site's rounds are charged to its training patients."""
        return self.mode == "patient" or (self.mode == "site" and self.noise == "distributed")
