"""Sums up measurements by sensor: a task to try things with. Standard library only."""

import argparse
import csv
import json
import random
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
FEWEST, MOST = 50, 150


def points(text):
    number = int(text)
    if not FEWEST <= number <= MOST:
        raise argparse.ArgumentTypeError(f"give {FEWEST} to {MOST}")
    return number


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "measurements.csv")
    parser.add_argument("--points", type=points, help="make up so many, rather than read --data")
    parser.add_argument("--seed", type=int, default=1, help="the same one makes up the same")
    parser.add_argument("--out", type=Path, help="a folder to write summary.json to")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between steps")
    return parser.parse_args()


def read(path):
    with path.open(newline="") as file:
        return [(row["sensor"], float(row["value"])) for row in csv.DictReader(file)]


def made_up(number, seed):
    chance = random.Random(seed)
    return [(f"sensor-{at % 5}", round(chance.gauss(20, 4), 2)) for at in range(number)]


def summary(values):
    return {
        "count": len(values),
        "mean": round(statistics.fmean(values), 3),
        "deviation": round(statistics.pstdev(values), 3),
        "least": min(values),
        "most": max(values),
    }


def main():
    asked = arguments()
    rows = made_up(asked.points, asked.seed) if asked.points else read(asked.data)
    print(f"{len(rows)} data points", flush=True)
    sensors = sorted({sensor for sensor, _ in rows})
    found = {}
    for at, sensor in enumerate(sensors, start=1):
        found[sensor] = summary([value for name, value in rows if name == sensor])
        print(f"[{at}/{len(sensors)}] {sensor}: mean {found[sensor]['mean']}", flush=True)
        time.sleep(asked.pause)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
        print(f"written to {asked.out / 'summary.json'}")
    print("completed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
