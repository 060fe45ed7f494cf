"""Runs the test suites of PostgreSQL drivers directly against PostgreSQL and through pgusher."""

from .java_suites import Pgjdbc
from .node_suites import NodePostgres, PostgresJs
from .pytest_suites import Asyncpg, Psycopg
from .rust_suites import Sqlx, TokioPostgres

SUITES = {
    suite.name: suite
    for suite in (Psycopg, Asyncpg, TokioPostgres, NodePostgres, PostgresJs, Sqlx, Pgjdbc)
}
