"""Makes data for the compression bench out of photos, a text font and a seed.

compress_data.py crops SIDE COUNT FOLDER PHOTO [PHOTO ...]   square crops of photos, as JPEG
compress_data.py lines COUNT SEED FOLDER                     lines of text, 48 pixels high, as PNG, and truth.txt
compress_data.py pages COUNT SEED FOLDER                     pages of text, as PNG

Each folder gets its items as 0000.jpg or 0000.png, ...
"""

import pathlib
import random
import sys

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

WORDS = """account address amount article balance battery bridge camera canoe carbon centre charge circuit column
contract copper current damage degree delay detail device direct driver engine entry error factor failure field figure
filter finger flight forest garden gauge handle harbour history hull island journal kernel ladder letter level limit
market matter measure memory method metal minute mirror moment motion motor mountain needle notice number object ocean
office orange origin outrigger package paper parcel pattern period picture pocket point position power pressure price
printer problem process product profit question quiet railway reason record report request result return river sample
season second sector sensor service shadow signal silver source square station street stream string summer supply
surface switch system table target temperature ticket timber total traffic travel trial valley value vessel voltage
volume wagon warning water weather weight window winter""".split()


def crops(side, count, folder, photos):
    images = [Image.open(photo).convert("RGB") for photo in photos]
    chance = random.Random(side)
    for item in range(count):
        image = images[item % len(images)]
        edge = chance.uniform(0.35, 1.0) * min(image.size)
        left = chance.uniform(0, image.width - edge)
        top = chance.uniform(0, image.height - edge)
        crop = image.resize((side, side), Image.BICUBIC, (left, top, left + edge, top + edge))
        if chance.random() < 0.5:
            crop = crop.transpose(Image.FLIP_LEFT_RIGHT)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            crop = enhance(crop).enhance(chance.uniform(0.7, 1.3))
        crop.save(folder / f"{item:04}.jpg", quality=92)


def phrase(chance):
    words = [chance.choice(WORDS) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.3:
        words = [word.capitalize() for word in words]
    if chance.random() < 0.4:
        words.insert(chance.randint(0, len(words)), str(chance.randint(0, 99999)))
    return " ".join(words)


def shade(chance):
    """Ink and ground, dark on light or the other way round."""
    ink, ground = chance.randint(0, 90), chance.randint(150, 255)
    return (ink, ground) if chance.random() < 0.8 else (ground, ink)


def noise(size, chance):
    return Image.frombytes("L", size, chance.randbytes(size[0] * size[1]))


def lines(count, seed, folder):
    chance = random.Random(seed)
    truth = []
    for item in range(count):
        text = phrase(chance)
        font = ImageFont.load_default(chance.randint(24, 36))
        ink, ground = shade(chance)
        width = int(font.getlength(text)) + chance.randint(8, 28)
        image = Image.new("L", (max(width, 48), 48), ground)
        box = font.getbbox(text)
        at = (chance.randint(2, 8), (48 - box[3] - box[1]) // 2 + chance.randint(-3, 3))
        ImageDraw.Draw(image).text(at, text, ink, font)
        image = image.rotate(chance.uniform(-1.2, 1.2), Image.BICUBIC, fillcolor=ground)
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0.0, 1.3)))
        image = Image.blend(image, noise(image.size, chance), chance.uniform(0.0, 0.15))
        image.convert("RGB").save(folder / f"{item:04}.png")
        truth.append(text)
    (folder / "truth.txt").write_text("\n".join(truth) + "\n")


def pages(count, seed, folder):
    chance = random.Random(seed)
    for item in range(count):
        ink, ground = shade(chance)
        image = Image.new("L", (480, 320), ground)
        draw, top = ImageDraw.Draw(image), chance.randint(4, 30)
        while top < 290:
            size = chance.randint(12, 34)
            draw.text((chance.randint(4, 160), top), phrase(chance), ink, ImageFont.load_default(size))
            top += size + chance.randint(4, 40)
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0.0, 1.0)))
        image = Image.blend(image, noise(image.size, chance), chance.uniform(0.0, 0.12))
        image.convert("RGB").save(folder / f"{item:04}.png")


def main(kind, *rest):
    if kind == "crops":
        side, count, folder, *photos = rest
        crops(int(side), int(count), pathlib.Path(folder), photos)
    else:
        count, seed, folder = rest
        {"lines": lines, "pages": pages}[kind](int(count), int(seed), pathlib.Path(folder))


main(*sys.argv[1:])
