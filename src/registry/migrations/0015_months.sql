-- What tenants have used in a month (when it begins, in UTC), for their quotas: the sum of their hours. A
-- tenant that is removed takes its own along, so that another one of its name begins with nothing.
CREATE TABLE pgusher.usage_monthly (
    tenant       text NOT NULL,
    month        timestamptz NOT NULL,
    queries      bigint NOT NULL,
    transactions bigint NOT NULL,
    PRIMARY KEY (tenant, month)
);

INSERT INTO pgusher.usage_monthly (tenant, month, queries, transactions)
    SELECT u.tenant, date_trunc('month', u.hour, 'UTC'), sum(u.queries)::bigint, sum(u.transactions)::bigint
    FROM pgusher.usage_hourly u LEFT JOIN pgusher.tenant t ON t.id = u.tenant
    WHERE u.hour >= coalesce(date_trunc('hour', t.created_at, 'UTC'), '-infinity')
    GROUP BY 1, 2;

CREATE INDEX usage_monthly_month ON pgusher.usage_monthly (month);
