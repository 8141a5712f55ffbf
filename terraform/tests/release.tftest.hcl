# What must not change unnoticed, on a plan without a cloud.

mock_provider "google" {
  override_during = plan

  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }

  override_resource {
    target = google_service_account.push
    values = { email = "recado-push@shop.iam.gserviceaccount.com" }
  }

  override_resource {
    target = google_pubsub_topic.dead_deliveries
    values = { id = "projects/shop/topics/deliveries-dead" }
  }

  override_resource {
    target = google_pubsub_topic.dead_results
    values = { id = "projects/shop/topics/results-dead" }
  }

  override_resource {
    target = google_kms_crypto_key.secrets
    values = { id = "projects/shop/locations/europe-west1/keyRings/recado/cryptoKeys/secrets" }
  }
}

variables {
  project    = "shop"
  release    = "abc1234-ef01"
  live       = "old1234-ab01"
  model_keys = ["OPENAI_API_KEY"]
}

run "pushes_prove_who_sends_them" {
  command = plan

  assert {
    condition = alltrue([
      for subscription in [
        google_pubsub_subscription.wakes, google_pubsub_subscription.deliveries,
        google_pubsub_subscription.results, google_pubsub_subscription.dead_results,
      ] : one(one(subscription.push_config).oidc_token).service_account_email == google_service_account.push.email
    ])
    error_message = "Every push must carry an OIDC token of the push account."
  }

  assert {
    condition     = one(one(google_pubsub_subscription.wakes.push_config).oidc_token).audience == "https://run-agent-123456789012.europe-west1.run.app"
    error_message = "A wake's token must be for run_agent alone."
  }

  assert {
    condition = alltrue([
      for subscription in [
        google_pubsub_subscription.deliveries, google_pubsub_subscription.results, google_pubsub_subscription.dead_results,
      ] : one(one(subscription.push_config).oidc_token).audience == "https://callbacks-123456789012.europe-west1.run.app"
    ])
    error_message = "The token of a delivery or a result must be for callbacks alone."
  }

  assert {
    condition = (
      one(one(google_cloud_scheduler_job.tick.http_target).oidc_token).service_account_email == google_service_account.push.email &&
      one(one(google_cloud_scheduler_job.tick.http_target).oidc_token).audience == local.audiences["callbacks"]
    )
    error_message = "The tick must carry a token of the push account for callbacks."
  }
}

run "wakes_keep_their_order_and_are_never_given_up" {
  command = plan

  assert {
    condition     = google_pubsub_subscription.wakes.enable_message_ordering && length(google_pubsub_subscription.wakes.dead_letter_policy) == 0
    error_message = "Wakes are ordered, and a dead-letter policy would break that."
  }

  assert {
    condition     = google_pubsub_subscription.wakes.ack_deadline_seconds == 600
    error_message = "A slice of 480 s must fit into the acknowledgement deadline."
  }

  assert {
    condition = alltrue([
      for subscription in [
        google_pubsub_subscription.wakes, google_pubsub_subscription.deliveries,
        google_pubsub_subscription.results, google_pubsub_subscription.dead_results,
      ] :
      one(subscription.retry_policy).minimum_backoff == "1s" && one(subscription.expiration_policy).ttl == ""
    ])
    error_message = "Pushes are repeated from 1 s on, and subscriptions never expire."
  }
}

run "deliveries_and_results_that_fail_are_kept_and_told" {
  command = plan

  assert {
    condition = (
      one(google_pubsub_subscription.deliveries.dead_letter_policy).dead_letter_topic == google_pubsub_topic.dead_deliveries.id &&
      one(google_pubsub_subscription.results.dead_letter_policy).dead_letter_topic == google_pubsub_topic.dead_results.id
    )
    error_message = "Deliveries and results need a dead letter."
  }

  assert {
    condition = alltrue([
      for name in ["deliveries", "results"] :
      google_pubsub_topic_iam_member.dead_letter_publisher[name].member == local.pubsub_agent &&
      google_pubsub_subscription_iam_member.dead_letter_subscriber[name].member == local.pubsub_agent
    ])
    error_message = "Without both roles Pub/Sub silently never forwards to the dead letter."
  }

  assert {
    condition = (
      strcontains(one(one(google_monitoring_alert_policy.alert["A delivery was given up"].conditions).condition_threshold).filter, "\"deliveries-dead\"") &&
      strcontains(one(one(google_monitoring_alert_policy.alert["A result was given up"].conditions).condition_threshold).filter, "\"results-push\"")
    )
    error_message = "Somebody must be told of a dead letter."
  }
}

run "roles_are_the_least" {
  command = plan

  assert {
    condition = length(setintersection(["roles/owner", "roles/editor"], concat(
      values(google_project_iam_member.pipeline)[*].role,
      values(google_project_iam_member.firestore_user)[*].role,
      values(google_project_iam_member.database_client)[*].role,
    ))) == 0
    error_message = "No account is owner or editor of the project."
  }

  assert {
    condition     = toset(keys(google_project_iam_member.database_client)) == toset(["api", "migrate"])
    error_message = "Only the control plane and its migrations reach the database."
  }

  assert {
    condition = toset(keys(google_secret_manager_secret_iam_member.reader)) == toset([
      "database-url/api",
      "database-url/migrate",
      "openai-api-key/run_agent",
      "platform-key/api",
      "platform-key/callbacks",
      "platform-key/ingest",
      "platform-key/run_agent",
      "smoke-key/pipeline",
    ])
    error_message = "A secret has a reader that does not need it, or lacks one that does."
  }
}

run "secrets_are_sealed_with_our_key" {
  command = plan

  assert {
    condition = alltrue([
      for secret in values(google_secret_manager_secret.secret) :
      one(one(one(one(secret.replication).user_managed).replicas).customer_managed_encryption).kms_key_name == google_kms_crypto_key.secrets.id
    ])
    error_message = "Every secret is encrypted with the project's own key."
  }
}

run "blobs_are_for_the_functions_alone_and_expire" {
  command = plan

  assert {
    condition = (
      google_storage_bucket.files.uniform_bucket_level_access &&
      google_storage_bucket.files.public_access_prevention == "enforced"
    )
    error_message = "What people wrote is never public."
  }

  assert {
    condition     = toset(keys(google_storage_bucket_iam_member.files_user)) == toset(["api", "callbacks", "ingest", "run_agent"])
    error_message = "Each function reads and writes blobs, and nobody else does."
  }

  assert {
    condition = (
      one(one(google_storage_bucket.files.lifecycle_rule).condition).age == 120 &&
      one(one(google_storage_bucket.files.lifecycle_rule).action).type == "Delete" &&
      one(google_storage_bucket.files.soft_delete_policy).retention_duration_seconds == 0
    )
    error_message = "Blobs go some time after the runs that they belong to, and for good."
  }

  assert {
    condition     = google_storage_bucket.files.name == "shop-recado-files"
    error_message = "Another name is another bucket: blobs that are waited for would not be found."
  }
}

run "what_is_kept_is_protected" {
  command = plan

  assert {
    condition = (
      google_firestore_database.sessions.delete_protection_state == "DELETE_PROTECTION_ENABLED" &&
      google_sql_database_instance.config.deletion_protection &&
      one(google_sql_database_instance.config.settings).connector_enforcement == "REQUIRED"
    )
    error_message = "Databases cannot be deleted by mistake or reached around IAM."
  }

  assert {
    condition = toset([for name, field in google_firestore_field.override : name if length(field.ttl_config) == 1]) == toset([
      "dead_results.expires_at", "dead_runs.expires_at", "receipts.expires_at", "runs.expires_at", "seen.expires_at",
      "steps.expires_at", "unreadable.expires_at"
    ])
    error_message = "Old runs with their pages, receipts, dead runs and results, seen ids and unreadable updates expire."
  }

  assert {
    condition     = length(google_firestore_field.override) == length(local.indexes.fieldOverrides)
    error_message = "Every override of firestore.indexes.json is made."
  }

  assert {
    condition     = length(one(google_firestore_field.override["sessions.state"].index_config).indexes) == 0
    error_message = "A session's state is not indexed."
  }
}

run "a_release_can_be_tried_before_it_is_live" {
  command = plan

  assert {
    condition     = output.next_urls["run_agent"] == "https://next---run-agent-123456789012.europe-west1.run.app"
    error_message = "The newest revision has an address of its own while another is live."
  }

  assert {
    condition     = output.live == "old1234-ab01" && output.release == "abc1234-ef01"
    error_message = "What has the traffic, and what was made, is written down."
  }
}

run "the_first_release_is_live_at_once" {
  command = plan

  variables {
    live = ""
  }

  assert {
    condition     = output.live == "abc1234-ef01" && output.next_urls == local.urls
    error_message = "With nothing before it, a release takes the traffic."
  }
}

run "without_a_release_all_but_the_functions_is_made" {
  command = plan

  variables {
    release = ""
    live    = ""
  }

  assert {
    condition     = length(google_cloud_run_v2_job.migrate) == 0 && length(module.function) == 4
    error_message = "Accounts and grants come first: the image and the secrets' values are not there yet."
  }
}

run "a_release_that_cannot_be_a_revision_is_refused" {
  command = plan

  variables {
    release = "Release_1"
  }

  expect_failures = [var.release]
}

run "a_key_itself_is_refused_as_the_name_of_one" {
  command = plan

  variables {
    model_keys = ["sk-proj-0123456789"]
  }

  expect_failures = [var.model_keys]
}
