"""Kind of a single file, from its first bytes and its suffix."""

from __future__ import annotations

from pathlib import Path

from assay.io.files import TORCH_FILES, check_plain_file

HEAD, TAIL = 4096, 65536  # bytes at the start and the end of a file
SUFFIXES = {
    ".onnx": "onnx",
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".ggml": "gguf",
    ".tflite": "tflite",
    ".mlmodel": "coreml",
    ".mlpackage": "coreml",
    ".mlmodelc": "coreml",
    ".msgpack": "flax",
    ".pb": "saved-model",
    ".keras": "keras",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".ort": "ort",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".trt": "tensorrt",
    ".xml": "openvino",
    ".pdmodel": "paddle",
    ".pdparams": "paddle",
    ".ot": "pickle",
    ".npz": "numpy",
    ".npy": "numpy",
    ".ptl": "torchscript",
    ".torchscript": "torchscript",
    ".mar": "archive",
    **dict.fromkeys((*sorted(TORCH_FILES), ".joblib", ".dill"), "pickle"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "archive"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"), "image"),
}
MAGIC = (
    (0, b"GGUF", "gguf"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (4, b"TFL3", "tflite"),
    (4, b"ORTM", "ort"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89PNG", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"\x1f\x8b", "archive"),
    (0, b"BZh", "archive"),
    (0, b"\xfd7zXZ", "archive"),
    (0, b"7z\xbc\xaf", "archive"),
    (0, b"\x28\xb5\x2f\xfd", "archive"),
    (257, b"ustar", "archive"),
    *((0, bytes([0x80, version]), "pickle") for version in range(2, 6)),
)
ZIP = b"PK\x03\x04"
ZIP_MEMBERS = (  # names in a zip file, the most telling first
    (b"constants.pkl", "torchscript"),
    (b"data.pkl", "pickle"),
    (b"model.weights.h5", "keras"),
    (b".npy", "numpy"),
)
# Beginning of a message of protobuf: the version of the format, as a small number, then a field with a length.
ONNX_SECOND_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def kind_of_file(path: Path) -> str:
    """Return the key of a file's kind. Its content takes precedence over its suffix.

    Raises:
        UnusableInput: The file is a pointer to a file elsewhere, a web page, empty, or no plain file.
    """
    check_plain_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
    stated = SUFFIXES.get(path.suffix.lower(), "unknown")
    found = _kind_of_content(head, tail, size)
    if stated == "pickle" and found in ("", "archive"):
        return stated
    return found or stated


def _kind_of_content(head: bytes, tail: bytes, size: int) -> str:
    """Return the key of the kind of some content, empty if its bytes tell nothing.

    Args:
        head: First bytes of the file.
        tail: Last bytes of the file.
        size: Bytes of the file.
    """
    if head.startswith(ZIP):
        return next((kind for name, kind in ZIP_MEMBERS if name in head or name in tail), "archive")
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header <= size:  # before the pickles: a header of 640 bytes begins as they do
        return "safetensors"
    for offset, magic, kind in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[:1] == b"\x08" and len(head) > 2 and 3 <= head[1] <= 20 and head[2] in ONNX_SECOND_FIELDS:
        return "onnx"
    return ""
