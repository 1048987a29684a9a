"""What the block model of classes in domains says, in formulas with the numbers of a run: its pages share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sims.engine import Run
from theory import domains as theory
from theory.domains import CLASS, DOMAIN, INTERACTION, BlockModel

from .formula import Formula, Numbers

_KEPT = {"cls": r"\lambda_{\mathrm{cls}}", "dom": r"\lambda_{\mathrm{dom}}", "int": r"\lambda_{\mathrm{int}}"}


def block_formulas(
    model_of: Callable[[Any], BlockModel],
    about: Callable[[Any], bool] = lambda params: True,
    fitted: Callable[[Any], bool] = lambda params: True,
) -> tuple[Formula, ...]:
    """Eigenvalues, the gain of a head, and the distance of domains, of runs with n_features and the four weights.

    Args:
        model_of: the block model of the params of a run.
        about: whether a run with these params has features of the model.
        fitted: whether its head is one of least squares.
    """

    def kept(params: Any) -> theory.Kept:
        return theory.kept(model_of(params), params.n_features)

    def sizes(run: Run) -> Numbers:
        model = model_of(run.params)
        return {"domains": model.domains, "Z": model.total}

    def values(run: Run) -> Numbers:
        found = kept(run.params)
        names = {"cls": CLASS, "dom": DOMAIN, "int": INTERACTION}
        return {"domains": found.model.domains, **{name: found.value(group) for name, group in names.items()}}

    def has_gain(params: Any) -> bool:
        """Whether class contrasts are kept or dropped as a whole, and interactions too, so that a head has one gain."""
        if not about(params) or not fitted(params):
            return False
        whole = all(kept(params).whole(group) for group in (CLASS, INTERACTION))
        return whole and theory.head_gain(model_of(params), params.n_features).value is not None

    def keeps_both(params: Any) -> bool:
        return has_gain(params) and all(kept(params).counts[group] for group in (CLASS, INTERACTION))

    def has_distance(params: Any) -> bool:
        return about(params) and theory.squared_distances(model_of(params), params.n_features)[0] is not None

    many = {"domains": "m", "Z": "Z"}
    return (
        Formula(
            says="The eigenvalue of class contrasts, Z being the sum of the weights of all pairs of an example. It is "
            "above that of interactions if one class in two domains is linked more than neither.",
            left=r"\lambda_{\mathrm{cls}}",
            right=r"\frac{<within> - <across_classes> + (<domains>-1) <*> (<across_domains> - <across_both>)}{<Z>}",
            value=lambda n: (
                (n["within"] - n["across_classes"] + (n["domains"] - 1) * (n["across_domains"] - n["across_both"]))
                / n["Z"]
            ),
            predicts="lam_class",
            numbers=sizes,
            symbols=many,
            when=about,
        ),
        Formula(
            says="The eigenvalue of domain contrasts: where it is kept, a linear classifier tells the domains apart.",
            left=r"\lambda_{\mathrm{dom}}",
            right=r"\frac{<within> - <across_domains> + (<classes>-1) <*> (<across_classes> - <across_both>)}{<Z>}",
            value=lambda n: (
                (n["within"] - n["across_domains"] + (n["classes"] - 1) * (n["across_classes"] - n["across_both"]))
                / n["Z"]
            ),
            predicts="lam_domain",
            numbers=sizes,
            symbols=many,
            when=about,
        ),
        Formula(
            says="The eigenvalue of interactions, which turn from domain to domain: to be dropped, it must be least.",
            left=r"\lambda_{\mathrm{int}}",
            right=r"\frac{<within> - <across_domains> - <across_classes> + <across_both>}{<Z>}",
            value=lambda n: (n["within"] - n["across_domains"] - n["across_classes"] + n["across_both"]) / n["Z"],
            predicts="lam_interaction",
            numbers=sizes,
            symbols=many,
            when=about,
        ),
        Formula(
            says="How much of the source's class contrast its head finds on the target. An eigenvalue that the "
            "features drop counts as 0.",
            left=r"\mathrm{gain}",
            right=r"\frac{<cls> - <int>}{<cls> + (<domains>-1) <*> <int>}",
            value=lambda n: (n["cls"] - n["int"]) / (n["cls"] + (n["domains"] - 1) * n["int"]),
            predicts="gain",
            numbers=values,
            symbols={**_KEPT, "domains": "m"},
            when=has_gain,
        ),
        Formula(
            says="The same in weights, since both eigenvalues are kept: right in sign wherever one class in two "
            "domains is linked more than neither, and small.",
            left=r"\mathrm{gain}",
            right=r"\frac{<across_domains> - <across_both>}{<within> - <across_classes>}",
            value=lambda n: (n["across_domains"] - n["across_both"]) / (n["within"] - n["across_classes"]),
            predicts="gain",
            when=keeps_both,
        ),
        Formula(
            says="The squared distance of one class in two domains: features that transfer need not look alike.",
            left=r"\|f_{\mathrm{source}} - f_{\mathrm{target}}\|^2",
            right=r"2 <*> <domains> <*> \left(<dom> + (<classes>-1) <*> <int>\right)",
            value=lambda n: 2 * n["domains"] * (n["dom"] + (n["classes"] - 1) * n["int"]),
            predicts="domain_distance",
            numbers=values,
            symbols={**_KEPT, "domains": "m"},
            when=has_distance,
        ),
    )
