import pytest
from miniature import Project, make_project


@pytest.fixture
def project(tmp_path) -> Project:
    return make_project(tmp_path)
