"""Clips from files: videos and animated images, written by FFmpeg and Pillow and read back."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eflm import DataError
from eflm_vision.data import clips

#: Codec and pixel format of each file type, as used by phones, cameras and browsers.
CODECS = {".mp4": ("libx264", "yuv420p"), ".mov": ("mpeg4", "yuv420p"), ".webm": ("libvpx-vp9", "yuv420p")}


def greys(count, height=32, width=48):
    """Return frames with the grey levels 40, 60, 80, …, which identify their index."""
    return [numpy.full((height, width, 3), 40 + 20 * number, dtype=numpy.uint8) for number in range(count)]


def video(file, frames, times=None, pixels=None):
    """Write a video with FFmpeg. `times`: in hundredths of a second; default: ten frames per second."""
    file.parent.mkdir(exist_ok=True, parents=True)
    codec, format = CODECS[file.suffix]
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels or format
        if pixels == "gray":
            stream.codec_context.color_range = 2  # full range, 0 to 255, as in the frames
        stream.codec_context.time_base = Fraction(1, 100)
        for number, content in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(content, format="rgb24" if content.ndim == 3 else "gray")
            frame.pts, frame.time_base = (times[number] if times else 10 * number), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def moving_picture(file, frames, durations=100, **options):
    """Write an animated image with Pillow."""
    file.parent.mkdir(exist_ok=True, parents=True)
    pages = [Image.fromarray(frame) for frame in frames]
    lossless = {"lossless": True} if file.suffix == ".webp" else {}
    pages[0].save(file, save_all=True, append_images=pages[1:], duration=durations, **lossless, **options)


def write(file, frames):
    (video if file.suffix in CODECS else moving_picture)(file, frames)


def levels(clip):
    """Return the mean grey level of each frame, from 0 to 255."""
    return ((clip.mean((1, 2, 3)) + 1) * 127.5).round().tolist()


def one(tmp_path, suffix, make, size=16, frames=5):
    """Load a folder with nine valid clips and the file that `make` writes, and return this file's clip."""
    for number in range(9):
        write(tmp_path / "good" / f"{number}.gif", greys(9))
    file = tmp_path / "odd" / f"one{suffix}"
    file.parent.mkdir()
    make(file)
    found = clips.load(tmp_path, size=size, frames=frames)
    assert found.captions == ("good", "odd")
    return found.pixels[found.labels == 1][0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".gif", ".webp"])
def test_frames_are_in_order_and_evenly_spaced(tmp_path, suffix):
    clip = one(tmp_path, suffix, lambda file: write(file, greys(9)))
    assert clip.shape == (5, 3, 16, 16)
    assert levels(clip) == pytest.approx([40, 80, 120, 160, 200], abs=3)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_colours_are_kept_and_the_central_square_is_cropped(tmp_path, suffix):
    frame = numpy.zeros((32, 64, 3), dtype=numpy.uint8)
    frame[:, :16], frame[:, 16:32], frame[:, 32:48], frame[:, 48:] = (
        (0, 0, 0), (200, 30, 30), (30, 30, 200), (255, 255, 255),
    )  # fmt: skip
    # Pillow would merge equal frames.
    darker = [frame - frame // 50 * number for number in range(5)]
    clip = one(tmp_path, suffix, lambda file: write(file, darker), size=32)
    left, right = (((clip[0][:, :, part].mean((1, 2)) + 1) * 127.5) for part in (slice(2, 14), slice(18, 30)))
    torch.testing.assert_close(left, torch.tensor([200.0, 30, 30]), rtol=0, atol=12)
    torch.testing.assert_close(right, torch.tensor([30.0, 30, 200]), rtol=0, atol=12)


@pytest.mark.parametrize("suffix", [".webm", ".gif", ".webp"])
def test_frames_are_evenly_spaced_in_time_rather_than_by_index(tmp_path, suffix):
    """Eight frames in the first half of the clip and one at its end: the frame nearest the middle is the eighth."""
    times = [0, 10, 20, 30, 40, 50, 60, 70, 140]

    def make(file):
        if suffix == ".webm":
            video(file, greys(9), times)
        else:
            durations = [10 * (after - before) for before, after in pairwise(times)]
            moving_picture(file, greys(9), [*durations, 100])

    assert levels(one(tmp_path, suffix, make, frames=3)) == pytest.approx([40, 180, 200], abs=3)


def test_a_gif_without_durations_has_evenly_spaced_frames(tmp_path):
    clip = one(tmp_path, ".gif", lambda file: moving_picture(file, greys(9), 0))
    assert levels(clip) == pytest.approx([40, 80, 120, 160, 200], abs=3)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(-100, 100), st.data())
def test_the_selected_frames_are_nearest_in_time(gaps, start, data):
    times = [start]
    for gap in gaps:
        times.append(times[-1] + gap)
    count = data.draw(st.integers(1, len(times)))
    rows = clips.evenly(times, count)
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert count == 1 or rows[-1] == len(times) - 1
    for step, row in enumerate(rows):
        instant = times[0] + (times[-1] - times[0]) * step / max(count - 1, 1)
        assert abs(times[row] - instant) == min(abs(time - instant) for time in times)
    assert clips.evenly(times, len(times)) == list(range(len(times))) or len(set(gaps)) > 1


def test_a_video_with_a_rotation_matrix_is_rotated(tmp_path):
    """Phones store the sensor's image unrotated, and a rotation matrix in the track header."""
    unrotated = numpy.zeros((48, 32, 3), dtype=numpy.uint8)
    unrotated[:24] = 255

    def make(file):
        video(file, [unrotated] * 5)
        content = bytearray(file.read_bytes())
        # ISO/IEC 14496-12, 8.3.2: in version 0, the matrix starts 40 bytes after the box type. 90° clockwise.
        matrix = content.index(b"tkhd") + 4 + 40
        content[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        file.write_bytes(content)

    clip = one(tmp_path, ".mp4", make)
    left, right = clip[0, :, :, :7].mean(), clip[0, :, :, 9:].mean()
    assert right > 0.9
    assert left < -0.9


def test_a_grey_video_is_converted_to_rgb(tmp_path):
    grey = [frame[:, :, 0] for frame in greys(5)]
    clip = one(tmp_path, ".mp4", lambda file: video(file, grey, pixels="gray"))
    assert levels(clip) == pytest.approx([40, 60, 80, 100, 120], abs=3)


def test_odd_sizes_are_cropped_and_scaled(tmp_path):
    clip = one(tmp_path, ".mp4", lambda file: video(file, greys(5, 17, 23), pixels="yuv444p"), size=31)
    assert clip.shape == (5, 3, 31, 31)
    assert levels(clip) == pytest.approx([40, 60, 80, 100, 120], abs=3)


def test_transparent_areas_are_white(tmp_path):
    pages = []
    for number in range(5):
        page = numpy.zeros((16, 16, 4), dtype=numpy.uint8)
        page[:, : 2 * number + 2, 3] = 255
        pages.append(page)
    clip = one(tmp_path, ".gif", lambda file: moving_picture(file, pages, disposal=2))
    assert levels(clip) == pytest.approx([255 * (1 - (2 * number + 2) / 16) for number in range(5)], abs=3)


def test_captions_come_from_metadata(tmp_path):
    lines = []
    for number in range(10):
        name = f"{number}{'.gif' if number % 2 else '.mp4'}"
        write(tmp_path / name, greys(5))
        lines.append({"file_name": name, "text": "a cloud passing" if number % 2 else "dawn"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = clips.load(tmp_path, size=8, frames=5)
    assert found.captions == ("a cloud passing", "dawn")
    assert found.labels.tolist() == [1, 0] * 5
    assert found.subjects == (0, 1)
    assert found.name == tmp_path.name
    assert found.sha256() == clips.load(tmp_path, size=8, frames=5).sha256()
    assert found.sha256() != clips.load(tmp_path, size=8, frames=3).sha256()


def only_audio(file):
    """Write a file with an audio stream only."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 1024), dtype=numpy.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cut_short(file):
    video(file, greys(9))
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("suffix", "make", "words"),
    [
        (
            ".mp4",
            lambda file: video(file, greys(4)),
            r"one\.mp4 has 4 frames, .*5 .*wan2\.1\.frames",
        ),
        (".gif", lambda file: moving_picture(file, greys(2)), r"one\.gif has 2 frames, .*5 "),
        (".mp4", cut_short, "one.mp4 cannot be read as a clip"),
        (".mp4", lambda file: file.write_bytes(b""), "one.mp4 cannot be read as a clip"),
        (".webm", lambda file: file.write_text("no clip"), "one.webm cannot be read as a clip"),
        (".gif", lambda file: file.write_text("no clip"), "one.gif cannot be read as a clip"),
        (".mp4", only_audio, r"one\.mp4 .*no video"),
    ],
)
def test_an_unusable_clip_is_an_error_that_names_the_file_and_the_cause(tmp_path, suffix, make, words):
    with pytest.raises(DataError, match=words):
        one(tmp_path, suffix, make)


def test_a_folder_with_both_clips_and_images_is_an_error(tmp_path):
    for number in range(10):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    still, moved = tmp_path / "still", tmp_path / "moved"
    for number in range(10):
        (still / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(still / "a" / f"{number}.gif")
        write(moved / "a" / f"{number}.gif", greys(3, 8, 8))
    assert not clips.holds_clips(still)
    assert clips.holds_clips(moved)
    Image.new("RGB", (8, 8)).save(moved / "a" / "still.png")
    with pytest.raises(DataError, match=r"0\.gif.*still\.png"):
        clips.holds_clips(moved)
