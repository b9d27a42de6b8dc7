"""Let retention remove audit entries that are older than a cut, which is recorded and can only be added"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_REFUSAL = "the audit log is append-only"
_CUT_REFUSAL = "the audit log is cut a day ago at the latest"


def upgrade() -> None:
    op.create_table(
        "audit_cut",
        sa.Column("before", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_refuses_delete")
        op.execute(
            "CREATE TRIGGER audit_refuses_delete BEFORE DELETE ON audit "
            "WHEN NOT EXISTS (SELECT 1 FROM audit_cut WHERE audit_cut.before > OLD.at) "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        )
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER audit_cut_refuses_{change} BEFORE {change.upper()} ON audit_cut "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        op.execute(
            "CREATE TRIGGER audit_cut_refuses_today BEFORE INSERT ON audit_cut "
            "WHEN NEW.before > strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 day') "
            f"BEGIN SELECT RAISE(ABORT, '{_CUT_REFUSAL}'); END"
        )
        return
    op.execute("DROP TRIGGER audit_refuses_change ON audit")
    op.execute(
        "CREATE TRIGGER audit_refuses_change BEFORE UPDATE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(
        "CREATE FUNCTION audit_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF EXISTS (SELECT 1 FROM audit_cut WHERE audit_cut.before > OLD.at) THEN RETURN OLD; END IF; "
        f"RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_refuses_delete BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete()"
    )
    op.execute(
        "CREATE TRIGGER audit_cut_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_cut "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.execute(
        "CREATE FUNCTION audit_cut_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.before <= now() - interval '1 day' THEN RETURN NEW; END IF; "
        f"RAISE EXCEPTION '{_CUT_REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_cut_refuses_today BEFORE INSERT ON audit_cut "
        "FOR EACH ROW EXECUTE FUNCTION audit_cut_refuse()"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_refuses_delete")
        op.execute(
            f"CREATE TRIGGER audit_refuses_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        )
        op.drop_table("audit_cut")  # takes its triggers along
        return
    op.execute("DROP TRIGGER audit_refuses_delete ON audit")
    op.execute("DROP TRIGGER audit_refuses_change ON audit")
    op.execute(
        "CREATE TRIGGER audit_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
    op.drop_table("audit_cut")
    op.execute("DROP FUNCTION audit_cut_refuse()")
    op.execute("DROP FUNCTION audit_refuse_delete()")
