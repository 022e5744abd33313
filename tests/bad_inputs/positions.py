"""Files of positions that must be refused for the CT of `point_ct`."""

from dataclasses import dataclass

FCSV = "# Markups fiducial file version = 4.11\n{}1,-10,20,-120,0,0,0,1,1,1,0,F-1,,\n"
MARKUPS = '{{"markups": [{{"type": "{}", "coordinateSystem": "{}", "controlPoints": [{{"position": [1, 2, 3]{}}}]}}]}}'


@dataclass(frozen=True)
class BadPositions:
    """A file that must be refused.

    Attributes:
        file: Its name.
        title: For people: what is wrong with it.
        text: What is in it.
        says: What the message must name.
        code: The error code it must give.
        exit_code: The command line's exit code.
        space: What is passed as ``space``.
    """

    file: str
    title: str
    text: str
    says: str
    code: str = "usage"
    exit_code: int = 2
    space: str | None = None


POSITIONS = (
    BadPositions("empty.csv", "an empty list", "", "no nodule"),
    BadPositions("header.csv", "a list without a column", "x,y\n1,2\n", "no column z"),
    BadPositions("faults.csv", "several faults", "id,x,y,z\na,one,2,3\nb,1,2\nc,1,nan,3\n", "line 4: y = 'nan'"),
    BadPositions("twice.csv", "an id twice", "id,x,y,z\na,1,2,3\na,4,5,6\n", "id a stands more than once"),
    BadPositions("commas.csv", "points and commas as decimal signs", "x;y;z\n1,234;2;3\n1.5;2;3\n", "decimal commas"),
    BadPositions("list.json", "JSON with a number that is none", '[{"x": NaN, "y": 2, "z": 3}]', "x = 'nan'"),
    BadPositions("keys.json", "JSON with a key twice", '[{"x": 1, "x": 2, "y": 2, "z": 3}]', "'x' stands twice"),
    BadPositions("line.mrk.json", "3D Slicer's line", MARKUPS.format("Line", "LPS", ""), "type 'Line'"),
    BadPositions("frame.mrk.json", "markups of an unknown frame", MARKUPS.format("Fiducial", "IJK", ""), "'IJK'"),
    BadPositions(
        "unplaced.mrk.json",
        "markups that nobody placed",
        MARKUPS.format("Fiducial", "LPS", ', "positionStatus": "undefined"'),
        "no placed point",
    ),
    BadPositions("frame.fcsv", "a fiducial list without its frame", FCSV.format(""), "no line '# CoordinateSystem"),
    BadPositions(
        "ras.mrk.json",
        "markups in RAS, with --space voxel",
        MARKUPS.format("Fiducial", "RAS", ""),
        "RAS mm, not voxel",
        space="voxel",
    ),
    BadPositions(
        "annotations.csv",
        "LUNA's list without the CT's series",
        "seriesuid,coordX,coordY,coordZ\n1.3.6.1,1,2,3\n",
        "no position in",
        code="coordinate-other-series",
        exit_code=3,
    ),
)
