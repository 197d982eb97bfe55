-- What psql can show of the database of schema.sql.
\set ON_ERROR_STOP on
\d
\d+
\dS pg_class
\d shop.*
\d+ shop.customers
\d+ shop.orders
\d+ shop.orders_2024
\d shop.orders_2024_a
\d+ shop.child
\d shop.parent
\d "Odd ""names"", and blanks".*
\d+ shop.watched
\d shop.rooms
\d shop.far_table
\d+ shop.counts
\d+ shop.amounts
\d shop.tickets
\d shop.young
\da shop.*
\dA+
\dAc+ hash text
\dAf hash text
\dAo hash text
\dAp hash text
\db
\dc+ shop.*
\dconfig+ *work_mem*
\dC+ shop.mood
\dd shop.*
\dD+ shop.*
\ddp
\dE+ shop.*
\dES
\des+
\det+ shop.*
\deu+
\dew+
\df+ shop.*
\dfa shop.*
\dfp shop.*
\dft shop.*
\df shop.twice text
\dF shop.*
\dF+ shop.plain
\dFd+ shop.*
\dFp
\dFt
\dg+
\di+ shop.*
\dl+
\dL+
\dm+ shop.*
\dn+
\dn shop
\do+ shop.*
\dO+ shop.*
\dp shop.*
\dP+
\dPi shop.*
\dPt shop.*
\drds
\drds tools_clerk
\dRp+
\dRs+
\ds+ shop.*
\dt
\dt+ shop.*
\dtv shop.c*
\dT+ shop.*
\du+
\dv+ shop.*
\dx+
\dX shop.*
\dy+
\encoding
\l
\l tools_source
\sf shop.moods
\sf+ shop.note_change
\sf shop.twice(text)
\sf shop.log_word
\sv shop.counts
\sv+ shop.grown_up
\z shop.*
\lo_list+
\conninfo
\set search_path `echo shop`
-- The same as seen by another role, on another search path.
set search_path = :search_path;
\d
\dt
\df
\dT
\dp customers
set role tools_clerk;
\d
\dn+
\dp
reset role;
\unset ON_ERROR_STOP
-- Nothing there, and not allowed.
\d nothing
\df nothing
\sf nothing
\sv nothing
\d "unfinished
\dt other.shop.customers
\d+ no.such.table.at.all
