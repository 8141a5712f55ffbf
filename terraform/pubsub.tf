# Wakes: "look at this session". The session's document is the truth, so a wake that is lost or doubled harms nothing.
resource "google_pubsub_topic" "wakes" {
  name       = "wakes"
  depends_on = [google_project_service.api]

  message_storage_policy {
    allowed_persistence_regions = [var.region] # an ordering key holds within one region
  }
}

# No dead-letter policy here: with one, order is only best effort, and a wake that fails for long must stay where it is
# until what it needs is back. The alert on its age says that somebody should look.
resource "google_pubsub_subscription" "wakes" {
  name                       = "wakes-push"
  topic                      = google_pubsub_topic.wakes.id
  enable_message_ordering    = true
  ack_deadline_seconds       = 600 # the longest there is; a slice ends after 480 s
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }

  retry_policy {
    minimum_backoff = "1s" # whoever took a session over is seen soon; the default is 10 s
    maximum_backoff = "600s"
  }

  push_config {
    push_endpoint = "${local.urls["run_agent"]}/wakes"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audiences["run_agent"]
    }
  }
}

# Receipts of channels: each stands alone, so they need no order and may go to a dead letter. So do results, below.
resource "google_pubsub_topic" "deliveries" {
  name       = "deliveries"
  depends_on = [google_project_service.api]
}

resource "google_pubsub_subscription" "deliveries" {
  name                       = "deliveries-push"
  topic                      = google_pubsub_topic.deliveries.id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_deliveries.id
    max_delivery_attempts = 20 # over two hours, as the pauses double up to ten minutes
  }

  push_config {
    push_endpoint = "${local.urls["callbacks"]}/deliveries"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audiences["callbacks"]
    }
  }
}

resource "google_pubsub_topic" "dead_deliveries" {
  name       = "deliveries-dead"
  depends_on = [google_project_service.api]
}

# Nobody reads it but people: it keeps what was given up for a week.
resource "google_pubsub_subscription" "dead_deliveries" {
  name                       = "deliveries-dead"
  topic                      = google_pubsub_topic.dead_deliveries.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# Results for callers, posted to addresses of theirs.
resource "google_pubsub_topic" "results" {
  name       = "results"
  depends_on = [google_project_service.api]
}

resource "google_pubsub_subscription" "results" {
  name                       = "results-push"
  topic                      = google_pubsub_topic.results.id
  ack_deadline_seconds       = 60 # an attempt ends after 10 s
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_results.id
    max_delivery_attempts = 20
  }

  push_config {
    push_endpoint = "${local.urls["callbacks"]}/results"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audiences["callbacks"]
    }
  }
}

resource "google_pubsub_topic" "dead_results" {
  name       = "results-dead"
  depends_on = [google_project_service.api]
}

# What was given up is written down for the tenant's operators: GET /v1/dead-results.
resource "google_pubsub_subscription" "dead_results" {
  name                       = "results-dead-push"
  topic                      = google_pubsub_topic.dead_results.id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "600s"
  }

  push_config {
    push_endpoint = "${local.urls["callbacks"]}/results/dead"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audiences["callbacks"]
    }
  }
}

# Pub/Sub itself moves messages to the dead letter; without both roles it silently never does.
locals {
  pubsub_agent = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic_iam_member" "dead_letter_publisher" {
  for_each = { deliveries = google_pubsub_topic.dead_deliveries.id, results = google_pubsub_topic.dead_results.id }

  topic  = each.value
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter_subscriber" {
  for_each = { deliveries = google_pubsub_subscription.deliveries.id, results = google_pubsub_subscription.results.id }

  subscription = each.value
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# Whose token Pub/Sub and Cloud Scheduler send. It may do nothing: the functions check that it is this one.
resource "google_service_account" "push" {
  account_id   = "recado-push"
  display_name = "Recado: signs pushes and the tick"
}

resource "google_service_account_iam_member" "push_token" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "wake_publisher" {
  for_each = module.function

  topic  = google_pubsub_topic.wakes.id
  role   = "roles/pubsub.publisher"
  member = each.value.member
}

resource "google_pubsub_topic_iam_member" "viewer" { # the detailed health check asks whether the topics are there
  for_each = { wakes = google_pubsub_topic.wakes.id, deliveries = google_pubsub_topic.deliveries.id }

  topic  = each.value
  role   = "roles/pubsub.viewer"
  member = module.function["api"].member
}

resource "google_pubsub_topic_iam_member" "delivery_publisher" {
  for_each = toset(["ingest", "run_agent", "callbacks"])

  topic  = google_pubsub_topic.deliveries.id
  role   = "roles/pubsub.publisher"
  member = module.function[each.key].member
}

resource "google_pubsub_topic_iam_member" "result_publisher" {
  topic  = google_pubsub_topic.results.id
  role   = "roles/pubsub.publisher"
  member = module.function["run_agent"].member
}
