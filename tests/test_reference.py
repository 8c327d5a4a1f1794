from tests.reference import PAGE, written_anew


def test_the_tables_of_the_reference_say_what_the_code_does() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written_anew(page) == page, "python -m tests.reference writes them anew"
