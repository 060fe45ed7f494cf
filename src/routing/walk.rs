//! A walk through what PostgreSQL's grammar made of a read: a list of what is harmless, and the
//! names that remain to be looked up. A node that isn't listed here sends its statement to the
//! primary.
//!
//! The nodes to come are held in a list, not on the stack: no depth of nesting can end the process.

use super::{
    Reason,
    names::{Found, NAMES_MAX, Name},
};
use pg_raw_parse::{Node, list::NodeList, nodes, raw::A_Expr_Kind};

/// Settings whose values differ between a primary and its standbys.
const OWN_SETTINGS: [&str; 10] = [
    "transaction_read_only",
    "in_hot_standby",
    "cluster_name",
    "port",
    "listen_addresses",
    "data_directory",
    "primary_conninfo",
    "primary_slot_name",
    "hot_standby_feedback",
    "synchronous_standby_names",
];

/// A walk, and what it has found so far.
#[derive(Default)]
pub(super) struct Walk<'t> {
    pub(super) found: Found<'t>,
    pub(super) to_do: Vec<Node<'t>>,
}

impl<'t> Walk<'t> {
    /// Looks through one statement.
    pub(super) fn take(&mut self, statement: Node<'t>) -> Result<(), Reason> {
        self.to_do.clear();
        let statement = match statement {
            Node::ExplainStmt(explain) => explained(explain.query())?,
            other => other,
        };
        match statement {
            Node::SelectStmt(_) => self.add(statement),
            _ => return Err(command(statement)),
        }
        while let Some(node) = self.to_do.pop() {
            self.visit(node)?;
        }
        if self.found.len() > NAMES_MAX {
            return Err(Reason::TooLong);
        }
        Ok(())
    }

    pub(super) fn into_found(self) -> Found<'t> {
        self.found
    }

    pub(super) fn add(&mut self, node: Node<'t>) {
        if !matches!(node, Node::None) {
            self.to_do.push(node);
        }
    }

    pub(super) fn add_all(&mut self, list: &'t NodeList) {
        for node in list {
            self.add(node);
        }
    }

    fn visit(&mut self, node: Node<'t>) -> Result<(), Reason> {
        match node {
            Node::None
            | Node::A_Const(_)
            | Node::A_Star(_)
            | Node::ParamRef(_)
            | Node::SQLValueFunction(_)
            | Node::String(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Boolean(_)
            | Node::BitString(_) => Ok(()),
            Node::NodeList(list) => {
                self.add_all(list);
                Ok(())
            }
            Node::SelectStmt(select) => self.select(select),
            Node::FuncCall(call) => self.call(call),
            Node::A_Expr(expression) => self.expression(expression),
            Node::TypeName(name) => self.type_name(name),
            Node::RangeVar(relation) => self.relation(relation),
            Node::RangeTableSample(sample) => self.sample(sample),
            Node::ColumnRef(column) => {
                self.column(column);
                Ok(())
            }
            other => self.plain(other),
        }
    }

    fn select(&mut self, select: &'t nodes::SelectStmt) -> Result<(), Reason> {
        if select.into_clause().is_some() {
            return Err(Reason::Into);
        }
        if !select.locking_clause().is_empty() {
            return Err(Reason::Locking);
        }
        for list in [
            select.distinct_clause(),
            select.from_clause(),
            select.group_clause(),
            select.window_clause(),
            select.values_lists(),
        ] {
            self.add_all(list);
        }
        for target in select.target_list() {
            self.add(target.val());
            self.add_all(target.indirection());
        }
        for by in select.sort_clause() {
            self.add(Node::SortBy(by));
        }
        for node in [
            select.where_clause(),
            select.having_clause(),
            select.limit_offset(),
            select.limit_count(),
        ] {
            self.add(node);
        }
        for side in [select.larg(), select.rarg()].into_iter().flatten() {
            self.add(Node::SelectStmt(side));
        }
        if let Some(with) = select.with_clause() {
            for one in with.ctes() {
                self.add(Node::CommonTableExpr(one));
            }
        }
        Ok(())
    }

    fn call(&mut self, call: &'t nodes::FuncCall) -> Result<(), Reason> {
        let name = qualified(call.funcname())?;
        if name.name == "current_setting" && !reads_common_setting(call) {
            return Err(Reason::Session);
        }
        self.found.functions.insert(name);
        self.add_all(call.args());
        for by in call.agg_order() {
            self.add(Node::SortBy(by));
        }
        self.add(call.agg_filter());
        if let Some(window) = call.over() {
            self.add(Node::WindowDef(window));
        }
        Ok(())
    }

    fn expression(&mut self, expression: &'t nodes::A_Expr) -> Result<(), Reason> {
        use A_Expr_Kind as Kind;
        match expression.kind {
            Kind::AEXPR_BETWEEN
            | Kind::AEXPR_NOT_BETWEEN
            | Kind::AEXPR_BETWEEN_SYM
            | Kind::AEXPR_NOT_BETWEEN_SYM => {
                for name in ["<", "<=", ">", ">="] {
                    self.operator(name);
                }
            }
            _ => self.operators(expression.name())?,
        }
        self.add(expression.lexpr());
        self.add(expression.rexpr());
        Ok(())
    }

    fn operators(&mut self, name: &'t NodeList) -> Result<(), Reason> {
        if !name.is_empty() {
            self.found.operators.insert(qualified(name)?);
        }
        Ok(())
    }

    fn operator(&mut self, name: &'static str) {
        self.found.operators.insert(Name { schema: None, name });
    }

    fn type_name(&mut self, name: &'t nodes::TypeName) -> Result<(), Reason> {
        if name.pct_type {
            return Err(Reason::Construct);
        }
        let parts = name.names().iter().map(nodes::String::sval);
        self.found.types.insert(last_two(parts)?);
        self.add_all(name.typmods());
        Ok(())
    }

    fn relation(&mut self, relation: &'t nodes::RangeVar) -> Result<(), Reason> {
        let schema = relation.schemaname();
        let name = relation.relname().ok_or(Reason::Construct)?;
        if schema.is_some_and(is_temporary) {
            return Err(Reason::Temporary);
        }
        self.found.relations.insert(Name { schema, name });
        Ok(())
    }

    fn sample(&mut self, sample: &'t nodes::RangeTableSample) -> Result<(), Reason> {
        let method = qualified(sample.method())?;
        let is_own = method.schema.is_none_or(|schema| schema == "pg_catalog");
        if !is_own || !matches!(method.name, "system" | "bernoulli") {
            return Err(Reason::Construct);
        }
        self.add(sample.relation());
        self.add_all(sample.args());
        self.add(sample.repeatable());
        Ok(())
    }

    fn column(&mut self, column: &'t nodes::ColumnRef) {
        let fields = column.fields();
        if fields.len() > 1
            && let Some(Node::String(last)) = fields.get(fields.len() - 1)
        {
            self.found.fields.extend(last.sval());
        }
    }

    /// Nodes of which only their parts matter.
    fn plain(&mut self, node: Node<'t>) -> Result<(), Reason> {
        match node {
            Node::BoolExpr(one) => self.add_all(one.args()),
            Node::NullTest(one) => self.add(one.arg()),
            Node::BooleanTest(one) => self.add(one.arg()),
            Node::CaseExpr(one) => {
                if !matches!(one.arg(), Node::None) {
                    self.operator("=");
                }
                self.add(one.arg());
                self.add_all(one.args());
                self.add(one.defresult());
            }
            Node::CaseWhen(one) => {
                self.add(one.expr());
                self.add(one.result());
            }
            Node::CoalesceExpr(one) => self.add_all(one.args()),
            Node::MinMaxExpr(one) => self.add_all(one.args()),
            Node::NamedArgExpr(one) => self.add(one.arg()),
            Node::TypeCast(one) => {
                self.add(one.arg());
                self.add_type(one.type_name());
            }
            Node::CollateClause(one) => self.add(one.arg()),
            Node::SubLink(one) => {
                self.operators(one.oper_name())?;
                if !matches!(one.testexpr(), Node::None) && one.oper_name().is_empty() {
                    self.operator("=");
                }
                self.add(one.testexpr());
                self.add(one.subselect());
            }
            Node::RowExpr(one) => self.add_all(one.args()),
            Node::A_ArrayExpr(one) => self.add_all(one.elements()),
            Node::A_Indirection(one) => {
                self.add(one.arg());
                for part in one.indirection() {
                    match part {
                        Node::String(field) => self.found.fields.extend(field.sval()),
                        other => self.add(other),
                    }
                }
            }
            Node::A_Indices(one) => {
                self.add(one.lidx());
                self.add(one.uidx());
            }
            Node::ResTarget(one) => self.add(one.val()),
            Node::GroupingSet(one) => self.add_all(one.content()),
            Node::GroupingFunc(one) => self.add_all(one.args()),
            other => return self.range(other),
        }
        Ok(())
    }

    pub(super) fn add_type(&mut self, name: Option<&'t nodes::TypeName>) {
        self.to_do.extend(name.map(Node::TypeName));
    }

    /// What stands in FROM, WITH, ORDER BY and WINDOW.
    fn range(&mut self, node: Node<'t>) -> Result<(), Reason> {
        match node {
            Node::RangeSubselect(one) => self.add(one.subquery()),
            Node::RangeFunction(one) => {
                self.add_all(one.functions());
                for column in one.coldeflist() {
                    self.add(Node::ColumnDef(column));
                }
            }
            Node::ColumnDef(one) => self.add_type(one.type_name()),
            Node::RangeTableFunc(one) => {
                self.add(one.docexpr());
                self.add(one.rowexpr());
                self.add_all(one.namespaces());
                for column in one.columns() {
                    self.add_type(column.type_name());
                    self.add(column.colexpr());
                    self.add(column.coldefexpr());
                }
            }
            Node::JoinExpr(one) => {
                if one.is_natural || !one.using_clause().is_empty() {
                    self.operator("=");
                }
                self.add(one.larg());
                self.add(one.rarg());
                self.add(one.quals());
            }
            Node::SortBy(one) => {
                self.operators(one.use_op())?;
                self.add(one.node());
            }
            Node::WindowDef(one) => {
                self.add_all(one.partition_clause());
                for by in one.order_clause() {
                    self.add(Node::SortBy(by));
                }
                self.add(one.start_offset());
                self.add(one.end_offset());
            }
            Node::CommonTableExpr(one) => {
                self.add(one.ctequery());
                if let Some(cycle) = one.cycle_clause() {
                    self.operator("=");
                    self.operator("<>");
                    self.add(cycle.cycle_mark_value());
                    self.add(cycle.cycle_mark_default());
                }
            }
            Node::XmlExpr(one) => {
                self.add_all(one.named_args());
                self.add_all(one.args());
            }
            Node::XmlSerialize(one) => {
                self.add(one.expr());
                self.add_type(one.type_name());
            }
            other => return self.json(other),
        }
        Ok(())
    }
}

/// What EXPLAIN explains, if that is a read. Whether it is run or not makes no difference.
fn explained(query: Node<'_>) -> Result<Node<'_>, Reason> {
    match query {
        Node::SelectStmt(_) => Ok(query),
        other => Err(command(other)),
    }
}

/// Why something that isn't a read goes to the primary.
pub(super) fn command(node: Node<'_>) -> Reason {
    match node {
        Node::InsertStmt(_) | Node::UpdateStmt(_) | Node::DeleteStmt(_) | Node::MergeStmt(_) => {
            Reason::Write
        }
        Node::CreateTableAsStmt(_) | Node::RefreshMatViewStmt(_) => Reason::Definition,
        Node::DeclareCursorStmt(_) | Node::CurrentOfExpr(_) => Reason::Cursor,
        Node::ExecuteStmt(_) | Node::PrepareStmt(_) => Reason::Prepared,
        Node::TransactionStmt(_) => Reason::Transaction,
        Node::VariableSetStmt(_) | Node::VariableShowStmt(_) => Reason::Session,
        Node::CopyStmt(_) => Reason::Copy,
        Node::DoStmt(_) | Node::CallStmt(_) => Reason::Code,
        _ => Reason::Construct,
    }
}

/// Whether a call of `current_setting` names a setting that is the same everywhere.
fn reads_common_setting(call: &nodes::FuncCall) -> bool {
    let Some(Node::A_Const(first)) = call.args().get(0) else {
        return false;
    };
    let value = first.val();
    let name = value
        .as_ref()
        .and_then(pg_raw_parse::ConstValue::string_value);
    name.is_some_and(|name| {
        !OWN_SETTINGS
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    })
}

fn is_temporary(schema: &str) -> bool {
    schema.starts_with("pg_temp") || schema.starts_with("pg_toast_temp")
}

fn qualified(list: &NodeList) -> Result<Name<&str>, Reason> {
    last_two(list.iter().map(Node::as_str))
}

/// The name of a list of parts, and its schema. A database ahead of them can only be the own one.
fn last_two<'t>(parts: impl Iterator<Item = Option<&'t str>>) -> Result<Name<&'t str>, Reason> {
    let mut schema = None;
    let mut name = None;
    for part in parts {
        schema = name;
        name = Some(part.ok_or(Reason::Construct)?);
    }
    if schema.is_some_and(is_temporary) {
        return Err(Reason::Temporary);
    }
    let name = name.ok_or(Reason::Construct)?;
    Ok(Name { schema, name })
}
