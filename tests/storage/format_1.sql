BEGIN TRANSACTION;
CREATE TABLE checkpoints (
        document INTEGER PRIMARY KEY,
        through INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        head BLOB NOT NULL,
        state BLOB NOT NULL
    ) STRICT;
INSERT INTO "checkpoints" VALUES(1,2,1716880400,X'68656164',X'7374617465');
CREATE TABLE document_values (
        document INTEGER NOT NULL,
        key TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (document, key)
    ) STRICT;
INSERT INTO "document_values" VALUES(1,'owner/7',121499341,X'616461');
CREATE TABLE documents (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        born INTEGER NOT NULL,
        last INTEGER NOT NULL DEFAULT 0,
        log_updates INTEGER NOT NULL DEFAULT 0,
        log_bytes INTEGER NOT NULL DEFAULT 0,
        checkpoint_bytes INTEGER NOT NULL DEFAULT 0,
        pending_updates INTEGER NOT NULL DEFAULT 0,
        quarantined_updates INTEGER NOT NULL DEFAULT 0,
        quarantined_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT;
INSERT INTO "documents" VALUES(1,'notes',0,3,1,5,9,2,0,0);
INSERT INTO "documents" VALUES(2,'mail',3,4,1,4,0,0,1,3);
CREATE TABLE log (
        sequence INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        content BLOB NOT NULL
    ) STRICT;
INSERT INTO "log" VALUES(3,1,845246005,X'7468726565');
INSERT INTO "log" VALUES(4,2,3593738844,X'666F7572');
CREATE TABLE outbox (
        remote INTEGER NOT NULL,
        document INTEGER NOT NULL,
        through INTEGER NOT NULL,
        PRIMARY KEY (remote, document)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "outbox" VALUES(1,1,3);
CREATE TABLE pending (
        document INTEGER NOT NULL,
        number INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        at INTEGER NOT NULL,
        source TEXT NOT NULL,
        content BLOB NOT NULL,
        UNIQUE (document, number)
    ) STRICT;
INSERT INTO "pending" VALUES(1,1,1309913424,1000,'identity ada',X'6561726C79');
INSERT INTO "pending" VALUES(1,2,2521701807,2000,'identity ada',X'6561726C696572');
CREATE TABLE quarantine (
        number INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        at INTEGER NOT NULL,
        code INTEGER NOT NULL,
        reason TEXT NOT NULL,
        source TEXT NOT NULL,
        content BLOB NOT NULL
    ) STRICT;
INSERT INTO "quarantine" VALUES(1,2,4082724122,3000,4422,'it is not an update','address ::1',X'626164');
CREATE TABLE remotes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO "remotes" VALUES(1,'ws://a');
CREATE TABLE replica_values (
        key TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL, content BLOB NOT NULL
    ) STRICT;
INSERT INTO "replica_values" VALUES('watermark/x',2127161288,X'77');
CREATE TABLE store (
        name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO "store" VALUES('incarnation',X'7BD5D47E446FCEC2A3D811736110E578',1337169490);
INSERT INTO "store" VALUES('marks',X'1BCCCEA696762E6116C6E9C92D99BF3551C02000000000005463C73CFF09EB18',3368104031);
INSERT INTO "store" VALUES('number',X'0000000000000001',3069078009);
INSERT INTO "store" VALUES('replica_id',X'C4BB86C3D1C427103C344C4189EB2F1E',387891194);
INSERT INTO "store" VALUES('sequence',X'0000000000000004',2396217071);
CREATE INDEX documents_overgrown ON documents (id) WHERE (log_updates > 64 OR log_bytes > 16384);
CREATE INDEX log_by_document ON log (document);
CREATE INDEX quarantine_by_document ON quarantine (document);
COMMIT;
