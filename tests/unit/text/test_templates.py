from slowfast.text.templates import ACTION_TEMPLATES


def test_templates_are_the_published_28_in_order():
    assert len(ACTION_TEMPLATES) == len(set(ACTION_TEMPLATES)) == 28
    assert ACTION_TEMPLATES[0] == "a photo of {}."
    assert ACTION_TEMPLATES[6] == "a photo of a person practicing {}."
    assert ACTION_TEMPLATES[14] == "a example of {}."
    assert ACTION_TEMPLATES[-1] == "a demonstration of a person practicing {}."
    assert all(template.count("{}") == 1 and template.endswith(".") for template in ACTION_TEMPLATES)
