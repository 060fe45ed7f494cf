//! The nodes of SQL/JSON, as [`super::walk`] goes through them.

use super::{
    Reason,
    walk::{Walk, command},
};
use pg_raw_parse::{Node, nodes};

impl<'t> Walk<'t> {
    /// The constructors and queries of SQL/JSON.
    pub(super) fn json(&mut self, node: Node<'t>) -> Result<(), Reason> {
        let construct = match node {
            Node::JsonValueExpr(one) => {
                self.add(one.raw_expr());
                return Ok(());
            }
            Node::JsonKeyValue(one) => {
                self.add(one.key());
                self.add_value(one.value());
                return Ok(());
            }
            Node::JsonArgument(one) => {
                self.add_value(one.val());
                return Ok(());
            }
            Node::JsonIsPredicate(one) => {
                self.add(one.expr());
                return Ok(());
            }
            Node::JsonObjectConstructor(one) => {
                for pair in one.exprs() {
                    self.add(Node::JsonKeyValue(pair));
                }
                self.add_output(one.output());
                "json_object"
            }
            Node::JsonArrayConstructor(one) => {
                for value in one.exprs() {
                    self.add(Node::JsonValueExpr(value));
                }
                self.add_output(one.output());
                "json_array"
            }
            Node::JsonArrayQueryConstructor(one) => {
                self.add(one.query());
                self.add_output(one.output());
                "json_array"
            }
            Node::JsonObjectAgg(one) => {
                self.to_do.extend(one.arg().map(Node::JsonKeyValue));
                self.aggregate(one.constructor());
                "json_objectagg"
            }
            Node::JsonArrayAgg(one) => {
                self.add_value(one.arg());
                self.aggregate(one.constructor());
                "json_arrayagg"
            }
            Node::JsonParseExpr(one) => {
                self.add_value(one.expr());
                self.add_output(one.output());
                "json"
            }
            Node::JsonScalarExpr(one) => {
                self.add(one.expr());
                self.add_output(one.output());
                "json_scalar"
            }
            Node::JsonSerializeExpr(one) => {
                self.add_value(one.expr());
                self.add_output(one.output());
                "json_serialize"
            }
            other => return self.json_query(other),
        };
        self.found.constructs.insert(construct);
        Ok(())
    }

    /// `JSON_EXISTS`, `JSON_QUERY`, `JSON_VALUE` and `JSON_TABLE`, with their clauses.
    fn json_query(&mut self, node: Node<'t>) -> Result<(), Reason> {
        match node {
            Node::JsonFuncExpr(one) => {
                self.add_value(one.context_item());
                self.add(one.pathspec());
                self.add_all(one.passing());
                self.add_output(one.output());
                self.add_behaviors([one.on_empty(), one.on_error()]);
                let names = ["json_exists", "json_query", "json_value"];
                self.found.constructs.extend(names);
            }
            Node::JsonTable(one) => {
                self.add_value(one.context_item());
                self.to_do
                    .extend(one.pathspec().map(Node::JsonTablePathSpec));
                self.add_all(one.passing());
                for column in one.columns() {
                    self.add(Node::JsonTableColumn(column));
                }
                self.add_behaviors([None, one.on_error()]);
                self.found.constructs.insert("json_table");
            }
            Node::JsonTablePathSpec(one) => self.add(one.string()),
            Node::JsonTableColumn(one) => {
                self.add_type(one.type_name());
                self.to_do
                    .extend(one.pathspec().map(Node::JsonTablePathSpec));
                self.add_all(one.columns());
                self.add_behaviors([one.on_empty(), one.on_error()]);
            }
            Node::JsonBehavior(one) => self.add(one.expr()),
            other => return Err(command(other)),
        }
        Ok(())
    }

    fn add_behaviors(&mut self, behaviors: [Option<&'t nodes::JsonBehavior>; 2]) {
        let given = behaviors.into_iter().flatten();
        self.to_do.extend(given.map(Node::JsonBehavior));
    }

    fn add_value(&mut self, value: Option<&'t nodes::JsonValueExpr>) {
        self.to_do.extend(value.map(Node::JsonValueExpr));
    }

    fn add_output(&mut self, output: Option<&'t nodes::JsonOutput>) {
        self.add_type(output.and_then(nodes::JsonOutput::type_name));
    }

    fn aggregate(&mut self, constructor: Option<&'t nodes::JsonAggConstructor>) {
        let Some(one) = constructor else { return };
        self.add_output(one.output());
        self.add(one.agg_filter());
        self.add_all(one.agg_order());
        self.to_do.extend(one.over().map(Node::WindowDef));
    }
}
