r"""SQL by which the database's master user makes the application's roles, for psql.

RDS's master user is no superuser: it may make roles, is a member of what it makes or can become one (PostgreSQL 16: it has the
ADMIN option of a role that it makes, and may grant the rest to itself), and gives away what it owns to a role that it is a member
of and that may make objects in the schema (postgresql.org/docs/16/role-membership.html, sql-altertable.html).

Each statement may run again and then changes nothing. `\password` takes the password from `psql_command` (database_jobs.py).
"""

from __future__ import annotations

_MAKE_ROLE = r"""
\getenv role APP_USER
\getenv database PGDATABASE
SELECT format('CREATE ROLE %I LOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
\password :"role"
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', :'database', :'role') \gexec
SELECT format('GRANT USAGE, CREATE ON SCHEMA public TO %I', :'role') \gexec
"""
# Kubernetes turns $$ in a command into $, so quotes are dollars with a word between.
_REFUSE_ANOTHERS = r"""
\getenv role APP_USER
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role'
  AND shobj_description(oid, 'pg_authid') IS DISTINCT FROM 'made by the Job database-roles of ShopCat') AS is_anothers \gset
\if :is_anothers
  DO $do$ BEGIN RAISE EXCEPTION USING MESSAGE = 'the role is there already, and this Job has not made it',
    HINT = 'set shopcat:database.applicationRole to one that nobody has'; END $do$;
\endif
BEGIN;
SELECT format('CREATE ROLE %I LOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('COMMENT ON ROLE %I IS %L', :'role', 'made by the Job database-roles of ShopCat') \gexec
COMMIT;
"""
"""A role that somebody else made keeps its password: its users would be shut out. Made and marked in one transaction."""
_KEEP_OTHERS_OUT = r"""SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', :'database') \gexec
"""
_TAKE_OVER = r"""
SET lock_timeout = '3s';
SELECT format('GRANT %I TO %I', :'role', current_user) \gexec
SELECT format('ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON %s TO %I', kind, :'role')
  FROM unnest(ARRAY['TABLES', 'SEQUENCES']) AS kind \gexec
CREATE TEMPORARY VIEW of_extensions AS SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e';
SELECT format('ALTER TABLE %I.%I OWNER TO %I', 'public', relname, :'role')
  FROM pg_catalog.pg_class
  WHERE relnamespace = 'public'::regnamespace AND relowner = current_user::regrole AND relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
    AND ('pg_class'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions)
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend AS of_column
      WHERE of_column.classid = 'pg_class'::regclass AND of_column.objid = pg_class.oid AND of_column.refobjsubid > 0
        AND relkind = 'S' AND of_column.deptype IN ('a', 'i'))
  ORDER BY relkind = 'S', oid \gexec
SELECT format('ALTER %s %I.%I(%s) OWNER TO %I',
    CASE prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
    'public', proname, pg_catalog.pg_get_function_identity_arguments(oid), :'role')
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole
    AND ('pg_proc'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions)
  ORDER BY oid \gexec
SELECT format('ALTER %s %I.%I OWNER TO %I', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, 'public', typname, :'role')
  FROM pg_catalog.pg_type
  WHERE typnamespace = 'public'::regnamespace AND typowner = current_user::regrole
    AND (typtype IN ('d', 'e', 'r')
      OR EXISTS (SELECT FROM pg_catalog.pg_class WHERE pg_class.oid = typrelid AND relkind = 'c'))
    AND ('pg_type'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions)
  ORDER BY oid \gexec
"""


def role_sql(*, taken_over: bool) -> str:
    """Return what the Job runs, as the master user.

    Args:
        taken_over: somebody else has made the database. Then the role gets what the master user owns in schema public (tables,
            sequences, views, functions, types, but nothing of an extension), and the master user goes on using it as a member.
            What it makes there later, the role may read and write. Nobody else's right to connect is taken away. An object
            that is in use is waited for three seconds; then psql fails, and the next attempt goes on. A role that somebody else
            made is refused before it is touched.
    """
    return _REFUSE_ANOTHERS + _MAKE_ROLE + _TAKE_OVER if taken_over else _MAKE_ROLE + _KEEP_OTHERS_OUT


_LOGIN = r"""
\getenv owner APP_OWNER
\getenv role LOGIN_USER
\getenv version LOGIN_VERSION
\getenv closes_owner CLOSES_OWNER
SELECT count(*) = 1 AND NOT bool_or(coalesce(mark, '') LIKE 'made for a colour of ShopCat%') AS is_anothers,
    count(*) = 1 AND bool_or(mark LIKE '%: %' AND mark <> 'made for a colour of ShopCat: ' || :'version') AS is_another_claims
  FROM (SELECT shobj_description(oid, 'pg_authid') AS mark FROM pg_roles WHERE rolname = :'role') AS known \gset
\if :is_anothers
  DO $do$ BEGIN RAISE EXCEPTION USING MESSAGE = 'the role of a colour is there already, and no release has made it',
    HINT = 'drop or rename it: its name is shopcat:database.applicationRole, _ and the colour'; END $do$;
\endif
BEGIN;
SELECT format('CREATE ROLE %I LOGIN', :'role'), format('COMMENT ON ROLE %I IS %L', :'role', 'made for a colour of ShopCat')
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('ALTER ROLE %I LOGIN INHERIT CONNECTION LIMIT -1 VALID UNTIL %L', :'role', 'infinity'),
  format('ALTER ROLE %I RESET ALL', :'role'), format('ALTER ROLE %I IN DATABASE %I RESET ALL', :'role', current_database()) \gexec
SELECT format('GRANT %I TO %I', :'owner', :'role') \gexec
SELECT format('GRANT %I, %I TO %I', :'owner', :'role', current_user) \gexec
\password :"role"
SELECT format('ALTER ROLE %I SET role = %L', :'role', :'owner') \gexec
\if :closes_owner
  SELECT format('ALTER ROLE %I NOLOGIN PASSWORD NULL', :'owner') \gexec
\endif
SELECT format('SELECT FROM set_config(%L, %L, true)', name, value),
    format('ALTER ROLE %I %s SET %I FROM CURRENT', :'role', place, name)
  FROM (SELECT setdatabase, CASE WHEN setdatabase > 0 THEN format('IN DATABASE %I', current_database()) END AS place,
      split_part(setting, '=', 1) AS name, substr(setting, strpos(setting, '=') + 1) AS value
    FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole AND rolname = :'owner', unnest(setconfig) AS setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) AS of_owner
  WHERE name <> 'role' AND lower(name) IN (SELECT lower(pg_settings.name) FROM pg_settings WHERE context = 'user')
  ORDER BY setdatabase \gexec
COMMIT;
SELECT count(pg_terminate_backend(pid)) AS sessions_ended FROM pg_stat_activity
  WHERE (usename = :'role' AND :'is_another_claims') OR (usename = :'owner' AND :'closes_owner');
SELECT format('COMMENT ON ROLE %I IS %L', :'role', 'made for a colour of ShopCat: ' || :'version') \gexec
"""


def login_sql() -> str:
    """Return what the Job of one claim runs, as the master user: the colour's role, with the claim's password and no other.

    The role is a member of the one that owns the tables, and every session of it begins as that: what a release makes is the
    owner's, whichever colour it was in, and a migration needs nothing else. PostgreSQL applies the settings of the role that
    signs in, so the colour's has those of the owner that any role may set (`search_path` and the like) and no others. Whatever
    else somebody changed in it by hand is undone. Where the claim closes the owner, nobody signs in as that any more.

    Sessions outlive their password. Those of the colour's former claims are ended, and the owner's where it is closed: no pod has
    them. The claim is written into the role's comment last, so that a Job of the same claim, whose pods may run, ends none.
    """
    return _LOGIN
