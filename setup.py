"Lee settings.ini: versión, dependencias, extras y órdenes. Los campos estáticos están en pyproject.toml."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]


def lines(name: str) -> list[str]:
    return [line.strip() for line in cfg[name].splitlines() if line.strip()]


extras = {key.removesuffix("_requirements"): lines(key) for key in cfg if key.endswith("_requirements")}
extras |= {
    key.removesuffix("_extras"): sorted({requirement for name in cfg[key].split() for requirement in extras[name]})
    for key in cfg
    if key.endswith("_extras")
}

setup(
    version=cfg["version"],
    author=cfg["author"],
    license=cfg["license"],
    keywords=[word.strip() for word in cfg["keywords"].split(",")],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["futbol_mlops", "futbol_mlops.*"]),
    package_data={"futbol_mlops": ["datasets/*", "datasets/exercise_bundle/*"]},
    install_requires=lines("requirements"),
    extras_require=extras,
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["futbol_mlops = futbol_mlops._modidx:d"]},
)
