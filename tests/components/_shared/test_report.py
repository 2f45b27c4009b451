import re

from penstock.components._shared.report import Report, new_figure


def write(path, text="a < b"):
    page = Report("Title <1>", subtitle=text)
    page.status(False, "not good")
    page.table(["name", "rows"], [["x", 1234], ["y", None]])
    for _ in range(2):
        figure = new_figure()
        figure.add_subplot().plot([1, 2], [3, 4])
        page.figure(figure, caption="a plot")
    page.write(path)
    return path.read_text()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_text_is_escaped(tmp_path):
    page = write(tmp_path / "a.html", text="<script>alert(1)</script>")
    assert "<script" not in page
    assert "Title &lt;1&gt;" in page


def test_ids_of_several_plots_do_not_collide(tmp_path):
    ids = re.findall(r'\bid="([^"]+)"', write(tmp_path / "a.html"))
    assert ids
    assert len(ids) == len(set(ids))


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    page = write(tmp_path / "a.html")
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "@import" not in page


def test_numbers_are_grouped_and_none_is_a_dash(tmp_path):
    page = write(tmp_path / "a.html")
    assert "1,234" in page
    assert "–" in page


def test_nothing_unfinished_is_left_beside_the_page(tmp_path):
    write(tmp_path / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
