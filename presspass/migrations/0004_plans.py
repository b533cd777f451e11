from django.db import migrations

PLANS = [
    (
        "nibbler",
        "Nibbler",
        3900,
        [
            "One live terminal of your own, for one broker account",
            "Runs day and night on our machines, also while your computer is off",
            "Another password or another account whenever you like",
        ],
    ),
    ("fang", "Fang", 8900, ["Everything in Nibbler", "Questions answered on the same working day"]),
    ("commander", "Commander", 18900, ["Everything in Fang", "Questions answered within two hours on working days"]),
]


def seed(apps, schema_editor):
    plans = apps.get_model("presspass", "Plan").objects.using(schema_editor.connection.alias)
    for position, (key, name, cents, includes) in enumerate(PLANS, start=1):
        plans.get_or_create(
            key=key,
            defaults={"name": name, "cents": cents, "includes": "\n".join(includes), "position": position},
        )


class Migration(migrations.Migration):
    dependencies = [("presspass", "0003_billing")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
